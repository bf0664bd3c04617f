"""Curves of an ablation over optimizer steps: means over seeds, and how far the seeds are apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.reporting.ablation.looks import Look, handles, look_of, short
from harness.reporting.document import Block, Column, Data, Figure, Note, Section, Table, Text
from harness.reporting.figures import legend

if TYPE_CHECKING:
    from harness.reporting.ablation.record import AblationRecord
    from harness.reporting.document import Cell
    from harness.reporting.themes import Theme

WATCHED = "dev/miou"
TOGETHER = 4
"""Variants that share one panel; more get one each."""
ACROSS = 3
"""Panels in a row of small multiples."""
LINES = ("step", "variant", "metric", "seeds", "mean", "lowest", "highest")
KINDS = {"logit": "logits", "confident": "logits, confident", "representation": "representations", "mix": "mix: both"}
"""Pseudo-labels whose quality is known, by the name in metrics."""
MEASURES = (
    ("miou", "mIoU of pseudo-labels on unlabelled images against the truth that training never sees"),
    ("accuracy", "Accuracy of pseudo-labels on unlabelled images"),
)


def curves(record: AblationRecord) -> Section:
    """Return the section on how training went."""
    blocks: list[Block] = []
    if _has_curve(record, WATCHED):
        blocks.append(watched(record))
    losses = [name for name in record.reported if name.startswith("train/loss/") and _has_curve(record, name)]
    if losses:
        caption = (
            "Losses of the training batches, unweighted, over the steps since the report before; means over seeds."
        )
        blocks.append(panels(record, "losses", caption, losses, lambda name: name.removeprefix("train/loss/")))
    if not blocks:
        blocks.append(Note("No complete training has two reports, so there are no curves.", "missing"))
    return Section("Learning curves", blocks)


def quality(record: AblationRecord) -> Section | None:
    """Return the section on pseudo-labels; none where nobody looked at them."""
    blocks: list[Block] = []
    for measure, caption in MEASURES:
        names = [f"quality/{kind}/{measure}" for kind in KINDS]
        names = [name for name in names if _has_curve(record, name)]
        if names:
            blocks.append(panels(record, f"pseudo-label-{measure}", f"{caption}, means over seeds.", names,
                                 lambda name: KINDS[name.split("/")[1]]))  # fmt: skip
    shares = [name for name in record.reported if name == "quality/agreement" or name.endswith("/share")
              or name.startswith("train/share/")]  # fmt: skip
    shares = [name for name in shares if _has_curve(record, name)]
    if shares:
        caption = ("Shares of pixels, means over seeds: on which both spaces agree and that are kept as labels "
                   "(`quality/`), and that losses use (`train/share/`).")  # fmt: skip
        blocks.append(panels(record, "shares", caption, shares, _share))
    if not blocks:
        return None
    last = last_values(record, [name for name in record.reported if name.startswith("quality/")])
    return Section("Pseudo-labels", [*blocks, last])


def health(record: AblationRecord) -> Section | None:
    """Return the section on what shows that a training goes astray; none where it was not reported."""
    names = [name for name in record.reported if name.startswith("health/") and _has_curve(record, name)]
    if not names:
        return None
    words = Text(
        "Prototypes that drift for long or come close to each other, a teacher far from its student, and predictions "
        "of few classes (entropy near 0) are what collapse looks like before scores show it."
    )
    caption = "Health of prototypes, teacher and predictions at each report, means over seeds."
    return Section("Health", [words, panels(record, "health", caption, names, _health)])


def watched(record: AblationRecord) -> Figure:
    """Return the curves of `dev/miou` with their bands: together, or a panel each behind which the base is drawn."""
    base = record.found.request.base
    variants = [name for name in record.variants if len(record.curve(name, WATCHED)) > 1]
    apart = len(variants) > TOGETHER
    alone = ", and with one seed there is none" if _single(record) else ""
    band = f"The band is from the lowest seed to the highest{alone}."
    behind = f" The dashed line in every panel is {base}." if apart and base in variants else ""
    caption = f"{WATCHED} of the teacher at each report, mean over seeds. {band}{behind}"

    def paint(canvas: Any, theme: Theme) -> None:
        if not apart:
            axes = canvas.subplots()
            for name in variants:
                _band(axes, record, name, theme)
            _axes(axes, WATCHED)
            legend(canvas, handles(record, variants, theme))
            return
        names = [name for name in variants if name != base]
        grid = canvas.subplots(-(-len(names) // ACROSS), ACROSS, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, name in zip(grid, names, strict=False):
            if base in variants:
                _line(axes, record, base, WATCHED, look_of(record, base, theme), 1)
            _band(axes, record, name, theme)
            axes.set_title(short(name))
            axes.set_xlim(left=0)
        _outside(grid, len(names), ACROSS)
        canvas.supylabel(WATCHED, fontsize=9)

    rows = -(-(len(variants) - 1) // ACROSS)
    height = 0.8 + 2.0 * rows if apart else 4.0
    alt = f"Curves of {WATCHED} over optimizer steps with bands, for {', '.join(variants)}."
    return Figure("learning-curves", caption, alt, paint, numbers(record, [WATCHED]), (7.6, height))


def panels(
    record: AblationRecord, name: str, caption: str, metrics: Sequence[str], label: Callable[[str], str]
) -> Figure:
    """Return a figure with a panel for each metric that ever changes, and in it the mean over seeds of each variant."""
    everything, still = metrics, [metric for metric in metrics if _never_changes(record, metric)]
    metrics = [metric for metric in metrics if metric not in still] or metrics
    if len(metrics) < len(everything):
        caption = f"{caption} Not shown, for it never changes: {', '.join(label(metric) for metric in still)}."
    across = min(ACROSS, len(metrics)) if len(metrics) != 4 else 2
    down = -(-len(metrics) // across)
    together = name.startswith("pseudo-label")

    def paint(canvas: Any, theme: Theme) -> None:
        grid = canvas.subplots(down, across, squeeze=False, sharex=True, sharey=together).ravel()
        drawn = set()
        for axes, metric in zip(grid, metrics, strict=False):
            for variant in record.variants:
                if _line(axes, record, variant, metric, look_of(record, variant, theme), 2):
                    drawn.add(variant)
            axes.set_title(label(metric))
            axes.set_xlim(left=0)
        _outside(grid, len(metrics), across)
        legend(canvas, handles(record, [variant for variant in record.variants if variant in drawn], theme))

    alt = f"Curves of {', '.join(metrics)} over optimizer steps, a line a variant."
    height = 1.0 + (2.8 if down == 1 else 2.1 * down)
    return Figure(name, caption, alt, paint, numbers(record, everything), (7.6, height))


def numbers(record: AblationRecord, metrics: Sequence[str]) -> Data:
    """Return what curves show: a row for each step, variant and metric."""
    rows: list[list[Cell]] = []
    for metric in metrics:
        for variant in record.variants:
            for step, values in record.curve(variant, metric).items():
                rows.append([step, variant, metric, len(values), statistics.fmean(values), min(values), max(values)])
    return Data(LINES, rows)


def last_values(record: AblationRecord, metrics: Sequence[str]) -> Table:
    """Return the table of the means over seeds at the horizon: a row a variant."""
    found = record.found
    columns = [
        Column("variant"),
        *(Column(metric.removeprefix("quality/"), name=metric, form=".3f") for metric in metrics),
    ]
    rows = [[name, *(found.summary(name, metric).mean for metric in metrics)] for name in record.variants]
    return Table("pseudo-labels", "Pseudo-labels at the horizon, means over seeds.", columns, rows)


def _has_curve(record: AblationRecord, metric: str) -> bool:
    return any(len(record.curve(variant, metric)) > 1 for variant in record.variants)


def _never_changes(record: AblationRecord, metric: str) -> bool:
    curves = [record.curve(variant, metric) for variant in record.variants]
    return len({value for curve in curves for values in curve.values() for value in values}) == 1


def _single(record: AblationRecord) -> bool:
    return any(len(runs) == 1 for runs in record.complete.values())


def _band(axes: Any, record: AblationRecord, variant: str, theme: Theme) -> None:
    curve, look = record.curve(variant, WATCHED), look_of(record, variant, theme)
    if curve:
        low, high = ([pick(values) for values in curve.values()] for pick in (min, max))
        axes.fill_between([*curve], low, high, color=look.color, alpha=0.2, linewidth=0)
    _line(axes, record, variant, WATCHED, look, 3)


def _line(axes: Any, record: AblationRecord, variant: str, metric: str, look: Look, order: int) -> bool:
    """Draw a mean over seeds; return whether there is any."""
    curve = record.curve(variant, metric)
    if curve:
        axes.plot([*curve], [statistics.fmean(values) for values in curve.values()], color=look.color,
                  linestyle=look.line, marker=look.mark, markersize=2.8, zorder=order)  # fmt: skip
    return bool(curve)


def _axes(axes: Any, metric: str) -> None:
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(metric)
    axes.set_xlim(left=0)


def _outside(grid: Any, used: int, across: int) -> None:
    """Take away empty panels, and say below the lowest ones what the axis is."""
    for place, axes in enumerate(grid):
        if place >= used:
            axes.remove()
            continue
        axes.tick_params(labelbottom=True)
        if place + across >= used:
            axes.set_xlabel("optimizer step", fontsize=8)


def _health(metric: str) -> str:
    return metric.removeprefix("health/").replace("_", " ")


def _share(metric: str) -> str:
    parts = metric.split("/")
    if metric == "quality/agreement":
        return "agreement"
    return f"{parts[2].replace('_', ' ')}, in losses" if metric.startswith("train/") else f"kept: {KINDS[parts[1]]}"
