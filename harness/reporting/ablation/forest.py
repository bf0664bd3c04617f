"""Differences to the base and the two sources of noise in them: which seeds, and which validation images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reporting.ablation.looks import short
from harness.reporting.ablation.words import DECIMALS, interval
from harness.reporting.document import Block, Column, Data, Figure, Note, Section, Table, Text
from harness.reporting.figures import legend
from harness.statistics.bootstrap import FEWEST, ImageInterval, image_bootstrap
from harness.statistics.compare import Verdict
from harness.statistics.intervals import differences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.reporting.ablation.record import AblationRecord
    from harness.reporting.document import Cell
    from harness.reporting.themes import Theme
    from harness.statistics.compare import Comparison

TITLE = "Differences and their noise"
REACH = 4.0
"""Intervals are drawn up to so many times the furthest single difference; few seeds have endless ones."""
SMALL = 0.01
"""How far the axis goes where no difference is other than 0."""
APART = 0.17
"""Of a row: how far both intervals of a variant lie from its middle."""


@dataclass(frozen=True)
class Difference:
    """A variant against the base, and both noises."""

    variant: str
    versus: Comparison
    by_seed: Mapping[int, float]
    images: ImageInterval | None
    """None where confusion matrices are missing or do not fit together."""


def forest(record: AblationRecord) -> Section:
    """Return the section; bootstraps take a second or two."""
    found = measured(record)
    drawn = [one for one in found if one.by_seed]
    if not drawn:
        return Section(TITLE, [Note("No variant has a seed in common with the base.", "missing")])
    blocks: list[Block] = [
        Text("Two things could have been otherwise: the seeds that were trained, and the images that were looked at. "
             "An interval over seeds supposes these images, one over images supposes these trained models; neither "
             "contains the other, and they must not be added up. Verdicts are about seeds."),
        _figure(record, drawn),
        _table(record, found),
    ]  # fmt: skip
    without = [one.variant for one in drawn if one.images is None]
    if without:
        blocks.append(Note(_why_not(record, without), "missing"))
    return Section(TITLE, blocks)


def measured(record: AblationRecord) -> list[Difference]:
    """Return the difference of each variant to the base, in the order of the table."""
    found, base = record.found, record.found.request.base
    compared = found.compare(record.metric)
    of_base = found.scores(base, record.metric)
    return [
        Difference(name, compared[name], differences(found.scores(name, record.metric), of_base),
                   image_noise(record, name))
        for name in found.others
    ]  # fmt: skip


def image_noise(record: AblationRecord, variant: str) -> ImageInterval | None:
    """Return the bootstrap over images of a variant's difference to the base, over the seeds that both have.

    None where it says nothing of the judged metric, or where confusion matrices of the same images are missing.
    """
    import numpy as np

    if not record.metric.endswith("/miou"):
        return None
    ours, base = record.looks(variant), record.looks(record.found.request.base)
    seeds = sorted(ours.keys() & base.keys())
    looks = [side[seed] for seed in seeds for side in (ours, base)]
    if not looks or len({look.names for look in looks}) > 1 or len(looks[0].names) < FEWEST:
        return None
    a, b = (np.stack([side[seed].confusion for seed in seeds]) for side in (ours, base))
    return image_bootstrap(a, b)


def _why_not(record: AblationRecord, variants: Sequence[str]) -> str:
    if not record.metric.endswith("/miou"):
        return f"Intervals over images are those of mIoU; there are none of {record.metric}."
    return (f"No interval over images for {', '.join(variants)}: confusion matrices of the same images (`{record.split}"
            ".npz`) are missing for the seeds that it shares with the base.")  # fmt: skip


def _table(record: AblationRecord, found: Sequence[Difference]) -> Table:
    columns = [
        Column("variant"),
        Column("difference", form=f"+.{DECIMALS}f"),
        Column("seeds"),
        Column("95 % interval over seeds", name="seeds_interval"),
        Column("images"),
        Column("95 % interval over images", name="images_interval"),
        Column("verdict"),
    ]
    rows: list[list[Cell]] = []
    exact: list[list[Cell]] = []
    for one in found:
        versus, images = one.versus, one.images
        over_images = interval(images.low, images.high) if images else None
        rows.append([one.variant, versus.difference, versus.n, interval(versus.ci_low, versus.ci_high),
                     images.images if images else None, over_images, str(versus.verdict)])  # fmt: skip
        exact.append([one.variant, versus.difference, versus.n, versus.ci_low, versus.ci_high,
                      *((images.difference, images.images, images.seeds, images.std, images.low, images.high)
                        if images else (None,) * 6), str(versus.verdict)])  # fmt: skip
    names = ["variant", "difference", "seeds", "seeds_low", "seeds_high", "images_difference", "images",
             "images_seeds", "images_std", "images_low", "images_high", "verdict"]  # fmt: skip
    base = record.found.request.base
    caption = (f"Difference in {record.metric} to {base}: Student's interval over paired seeds, and the percentile "
               "interval of resampled images, the same for both variants and all seeds.")  # fmt: skip
    return Table("noise", caption, columns, rows, exact=Data(names, exact))


def _figure(record: AblationRecord, found: Sequence[Difference]) -> Figure:
    base, reach = record.found.request.base, _reach(found)
    left, right = _span(found, reach)
    goes_on = " Arrows: an interval goes on." if any(_beyond(one, reach) for one in found) else ""
    caption = (f"Differences to {base} in {record.metric}. Dots: each seed. Circles: their mean and its 95 % interval "
               f"over seeds. Squares: the mean and its 95 % interval over images.{goes_on}")  # fmt: skip
    words = [f"{one.variant} {one.versus.difference or 0.0:+.{DECIMALS}f}, {one.versus.verdict}" for one in found]

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        axes.axvline(0, color=theme.ink, linewidth=1.0, zorder=1)
        for row, one in enumerate(found):
            _draw(axes, row, one, reach, theme)
        axes.set_yticks(range(len(found)), [short(one.variant) for one in found])
        axes.tick_params(axis="y", length=0, labelcolor=theme.ink, labelsize=9)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlim(left, right)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"difference in {record.metric} to {base}")
        legend(canvas, _handles(found, theme))

    data = Data(["variant", "source", "seed", "difference", "low", "high"], _numbers(found))
    size = (7.6, 1.5 + 0.52 * len(found))
    return Figure("forest", caption, f"Forest plot of differences: {'; '.join(words)}.", paint, data, size)


def _numbers(found: Sequence[Difference]) -> list[list[Cell]]:
    """Return what the figure shows: each seed, the interval over seeds, the interval over images."""
    rows: list[list[Cell]] = []
    for one in found:
        rows += [[one.variant, "seed", seed, value, None, None] for seed, value in one.by_seed.items()]
        rows.append([one.variant, "seeds", None, one.versus.difference, one.versus.ci_low, one.versus.ci_high])
        if one.images:
            rows.append([one.variant, "images", None, one.images.difference, one.images.low, one.images.high])
    return rows


def _reach(found: Sequence[Difference]) -> float:
    """Return how far from 0 intervals over seeds are drawn."""
    sizes = [abs(value) for one in found for value in one.by_seed.values()]
    sizes += [abs(end) for one in found if one.images for end in (one.images.low, one.images.high)]
    return REACH * max(sizes) if any(sizes) else SMALL


def _beyond(one: Difference, reach: float) -> bool:
    return any(end is not None and abs(end) > reach for end in (one.versus.ci_low, one.versus.ci_high))


def _span(found: Sequence[Difference], reach: float) -> tuple[float, float]:
    """Return the ends of the axis: 0 and everything drawn is inside."""
    values = [0.0, *(value for one in found for value in one.by_seed.values())]
    values += [end for one in found if one.images for end in (one.images.low, one.images.high)]
    ends = [end for one in found for end in (one.versus.ci_low, one.versus.ci_high) if end is not None]
    values += [max(-reach, min(reach, end)) for end in ends]
    room = 0.05 * (max(values) - min(values)) or SMALL
    return min(values) - room, max(values) + room


def _draw(axes: Any, row: int, one: Difference, reach: float, theme: Theme) -> None:
    """Draw a variant: seeds above the middle of its row, images below."""
    versus, above, below = one.versus, row - APART, row + APART
    seeds, images = theme.series[0], theme.series[1]
    if versus.ci_low is not None and versus.ci_high is not None:
        axes.plot([max(-reach, versus.ci_low), min(reach, versus.ci_high)], [above] * 2, color=seeds, linewidth=2)
        for end, mark in ((versus.ci_low, "<"), (versus.ci_high, ">")):
            if abs(end) > reach:
                axes.plot(reach if end > 0 else -reach, above, mark, color=seeds, markersize=6)
    axes.plot(versus.difference, above, "o", color=seeds, markersize=7, markeredgecolor=theme.paper, zorder=4)
    axes.scatter([*one.by_seed.values()], [above] * len(one.by_seed), s=13, color=theme.ink, zorder=5, linewidths=0)
    if one.images is not None:
        axes.plot([one.images.low, one.images.high], [below] * 2, color=images, linewidth=2)
        axes.plot(one.images.difference, below, "s", color=images, markersize=6, markeredgecolor=theme.paper, zorder=4)
    stands_out = versus.verdict in (Verdict.BETTER, Verdict.WORSE)
    axes.annotate(str(versus.verdict), (1.01, row), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8.5,
                  color=theme.ink if stands_out else theme.muted,
                  weight="bold" if stands_out else "normal", annotation_clip=False)  # fmt: skip


def _handles(found: Sequence[Difference], theme: Theme) -> list[Any]:
    from matplotlib.lines import Line2D

    seeds, images = theme.series[0], theme.series[1]
    shown = [Line2D([], [], linestyle="none", marker="o", markersize=3.5, color=theme.ink, label="a seed")]
    if any(one.versus.ci_low is not None for one in found):
        shown.append(Line2D([], [], color=seeds, marker="o", linewidth=2, label="mean, 95 % over seeds"))
    else:
        shown.append(Line2D([], [], color=seeds, marker="o", linestyle="none", label="mean over seeds"))
    if any(one.images for one in found):
        shown.append(Line2D([], [], color=images, marker="s", linewidth=2, label="mean, 95 % over images"))
    return shown
