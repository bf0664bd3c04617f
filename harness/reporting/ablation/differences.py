"""Differences of variants to the base: the noise of seeds and of images in them, and the classes they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D

from harness.reporting.ablation.comparison import UNSCORED, without_scores
from harness.reporting.ablation.record import (
    DECIMALS,
    AblationRecord,
    interval,
    plus_minus,
    short,
    signed,
    with_interval,
)
from harness.reporting.document import Block, Cell, Column, Data, Figure, Note, Section, Table, Text
from harness.reporting.figures import legend
from harness.reporting.themes import Theme
from harness.statistics.bootstrap import FEWEST, ImageInterval, image_bootstrap
from harness.statistics.compare import Comparison, Verdict
from harness.statistics.intervals import Summary, differences, summary

TITLE = "Differences and their noise"
REACH = 4.0
"""Intervals are drawn up to so many times the furthest single difference; few seeds have endless ones."""
SMALL = 0.01
"""How far axes and colours go where no difference is other than 0."""
APART = 0.17
"""Of a row: how far both intervals of a variant lie from its middle."""
MOST = 40
"""Classes that the figure shows; tables hold all."""
WRITTEN = 24
"""Classes up to which the figure writes its numbers."""


@dataclass(frozen=True)
class Difference:
    """A variant against the base, and both noises."""

    variant: str
    versus: Comparison
    by_seed: Mapping[int, float]
    images: ImageInterval | None
    """None where confusion matrices are missing or do not fit together."""


def forest(record: AblationRecord) -> Section:
    """Return the section on both noises; bootstraps take a second or two."""
    rows = measured(record)
    drawn = [row for row in rows if row.by_seed]
    if not drawn:
        note = Note("No variant has a seed in common with the base.", "missing")
        return Section(TITLE, [note, *without_scores(record)])
    blocks: list[Block] = [
        Text("Two things could have been otherwise: the seeds that were trained, and the images that were looked at. "
             "An interval over seeds supposes these images, one over images supposes these trained models; neither "
             "contains the other, and they must not be added up. Verdicts are about seeds."),
        _forest_figure(record, drawn),
        _noise(record, rows),
        *without_scores(record),
    ]  # fmt: skip
    without = [row.variant for row in drawn if row.images is None]
    if without and record.ablation.request.info.trainer != "scores":
        why = (f"No interval over images for {', '.join(without)}: confusion matrices of the same images "
               f"(`{record.split}.npz`) are missing for the seeds that it shares with the base.")  # fmt: skip
        other = f"Intervals over images are those of mIoU; there are none of {record.metric}."
        blocks.append(Note(why if record.metric.endswith("/miou") else other, "missing"))
    return Section(TITLE, blocks)


def measured(record: AblationRecord) -> list[Difference]:
    """Return the difference of each variant to its base, in the order of the table."""
    rows = []
    for name, versus in record.ablation.compare(record.metric).items():
        ours, base = (record.ablation.scores(each, record.metric) for each in (name, record.base_of(name)))
        rows.append(Difference(name, versus, differences(ours, base), image_noise(record, name)))
    return rows


def image_noise(record: AblationRecord, variant: str) -> ImageInterval | None:
    """Return the bootstrap over images of a variant's difference to the base, over the seeds that both have.

    None where it says nothing of the judged metric, or where confusion matrices of the same images are missing.
    """
    if not record.metric.endswith("/miou"):
        return None
    ours, base = record.evaluations(variant), record.evaluations(record.base_of(variant))
    seeds = sorted(ours.keys() & base.keys())
    names = {side[seed].names for seed in seeds for side in (ours, base)}
    if len(names) != 1 or len(next(iter(names))) < FEWEST:
        return None
    a, b = (np.stack([side[seed].confusion for seed in seeds]) for side in (ours, base))
    return image_bootstrap(a, b)


def _noise(record: AblationRecord, rows: Sequence[Difference]) -> Table:
    columns = [
        Column("variant"),
        Column("difference", form=f"+.{DECIMALS}f"),
        Column("seeds"),
        Column("95 % interval over seeds", name="seeds_interval"),
        Column("images"),
        Column("95 % interval over images", name="images_interval"),
        Column("verdict"),
    ]
    cells, exact = list[list[Cell]](), list[list[Cell]]()
    for row in rows:
        versus, images = row.versus, row.images
        over_seeds = interval(versus.ci_low, versus.ci_high)
        over_images = [images.images, interval(images.low, images.high)] if images else [None, None]
        verdict = UNSCORED if row.variant in record.unscored else str(versus.verdict)
        cells.append([row.variant, versus.difference, versus.n, over_seeds, *over_images, verdict])
        exact.append([row.variant, versus.difference, versus.n, versus.ci_low, versus.ci_high,
                      *((images.difference, images.images, images.seeds, images.std, images.low, images.high)
                        if images else (None,) * 6), str(versus.verdict)])  # fmt: skip
    names = ["variant", "difference", "seeds", "seeds_low", "seeds_high", "images_difference", "images",
             "images_seeds", "images_std", "images_low", "images_high", "verdict"]  # fmt: skip
    caption = (f"Difference in {record.metric} to {record.base}: Student's interval over paired seeds, and the "
               "percentile interval of resampled images, the same for both variants and all seeds.")  # fmt: skip
    return Table("noise", caption, columns, cells, exact=Data(names, exact))


def _forest_figure(record: AblationRecord, rows: Sequence[Difference]) -> Figure:
    points = [value for row in rows for value in row.by_seed.values()]
    points += [end for row in rows if row.images for end in (row.images.low, row.images.high)]
    ends = [end for row in rows for end in (row.versus.ci_low, row.versus.ci_high) if end is not None]
    reach = REACH * max(map(abs, points)) or SMALL
    points += [0.0, *(max(-reach, min(reach, end)) for end in ends)]
    room = 0.05 * (max(points) - min(points)) or SMALL
    goes_on = " Arrows: an interval goes on." if any(abs(end) > reach for end in ends) else ""
    caption = (f"Differences to {record.base} in {record.metric}. Dots: each seed. Circles: their mean and its 95 % "
               f"interval over seeds. Squares: the mean and its 95 % interval over images.{goes_on}")  # fmt: skip
    words = [f"{row.variant} {signed(row.versus.difference or 0.0)}, {row.versus.verdict}" for row in rows]

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        axes.axvline(0, color=theme.ink, linewidth=1.0, zorder=1)
        for place, row in enumerate(rows):
            _draw(axes, place, row, reach, theme)
        axes.set_yticks(range(len(rows)), [short(row.variant) for row in rows])
        axes.tick_params(axis="y", length=0, labelcolor=theme.ink, labelsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(min(points) - room, max(points) + room)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"difference in {record.metric} to {record.base}")
        over = "mean, 95 % over seeds" if ends else "mean over seeds"
        handles = [
            Line2D([], [], linestyle="", marker="o", markersize=3.5, color=theme.ink, label="a seed"),
            Line2D([], [], linestyle="-" if ends else "", marker="o", linewidth=2, color=theme.series[0], label=over),
        ]
        if any(row.images for row in rows):
            over = "mean, 95 % over images"
            handles.append(Line2D([], [], marker="s", linewidth=2, color=theme.series[1], label=over))
        legend(canvas, handles)

    data: list[list[Cell]] = []
    for row in rows:
        data += [[row.variant, "seed", seed, value, None, None] for seed, value in row.by_seed.items()]
        data.append([row.variant, "seeds", None, row.versus.difference, row.versus.ci_low, row.versus.ci_high])
        if row.images:
            data.append([row.variant, "images", None, row.images.difference, row.images.low, row.images.high])
    names = ["variant", "source", "seed", "difference", "low", "high"]
    alt = f"Forest plot of differences: {'; '.join(words)}."
    return Figure("forest", caption, alt, paint, Data(names, data), (7.6, 1.5 + 0.52 * len(rows)))


def _draw(axes: Any, place: int, row: Difference, reach: float, theme: Theme) -> None:
    """Draw a variant: seeds above the middle of its row, images below."""
    versus, images, above, below = row.versus, row.images, place - APART, place + APART
    values = [*row.by_seed.values()]
    axes.scatter(values, [above] * len(values), s=13, color=theme.ink, zorder=5, linewidths=0)
    style = {"color": theme.series[0], "markersize": 7, "markeredgecolor": theme.paper, "zorder": 4}
    if versus.ci_low is None or versus.ci_high is None:
        axes.plot(versus.difference, above, "o", **style)
    else:
        ends = [max(-reach, versus.ci_low), versus.difference, min(reach, versus.ci_high)]
        axes.plot(ends, [above] * 3, "-o", markevery=[1], linewidth=2, **style)
        for end, mark in ((versus.ci_low, "<"), (versus.ci_high, ">")):
            if abs(end) > reach:
                axes.plot(math.copysign(reach, end), above, mark, color=theme.series[0], markersize=6)
    if images is not None:
        style |= {"color": theme.series[1], "markersize": 6}
        ends = [images.low, images.difference, images.high]
        axes.plot(ends, [below] * 3, "-s", markevery=[1], linewidth=2, **style)
    stands_out = versus.verdict in (Verdict.BETTER, Verdict.WORSE)
    axes.annotate(str(versus.verdict), (1.01, place), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8.5,
                  color=theme.ink if stands_out else theme.muted,
                  weight="bold" if stands_out else "normal", annotation_clip=False)  # fmt: skip


@dataclass(frozen=True)
class ClassScores:
    """IoU of a class by variant, and the difference to the base over paired seeds by variant beside the base."""

    name: str
    over: Mapping[str, Summary]
    difference: Mapping[str, Summary]

    @property
    def largest(self) -> float:
        """The largest mean difference, whatever its sign."""
        return max((abs(one.mean) for one in self.difference.values() if one.mean is not None), default=0.0)


def classes(record: AblationRecord) -> Section:
    """Return the section on the IoU of single classes."""
    rows = by_class(record)
    if not rows:
        why = f"No complete training has scores of single classes (`{record.split}/iou/...`)."
        return Section("Classes", [Note(why, "missing")])
    blocks: list[Block] = []
    every = [difference for row in rows for difference in row.difference.values()]
    if any(difference.mean is not None for difference in every):
        if any(difference.low is not None for difference in every):
            blocks.append(Note(
                f"These are {len(every)} differences, and their intervals are not adjusted for being so many: where no "
                f"class differs, about {0.05 * len(every):.2g} of them lie beside 0 all the same. They say where to "
                "look, not what is so.", "caution"))  # fmt: skip
        blocks += [_class_figure(record, rows), _class_differences(record, rows)]
    return Section("Classes", [*blocks, _class_scores(record, rows), *without_scores(record)])


def by_class(record: AblationRecord) -> list[ClassScores]:
    """Return the scores of each class that has any, in the order of the data, without variants never evaluated."""
    variants = [name for name in record.variants if name not in record.unscored]
    rows = []
    for name in record.ablation.request.classes:
        scores = {variant: record.ablation.scores(variant, f"{record.split}/iou/{name}") for variant in variants}
        if any(scores.values()):
            over = {variant: summary([*by_seed.values()]) for variant, by_seed in scores.items()}
            between = {
                variant: summary([*differences(by_seed, scores.get(record.base_of(variant), {})).values()])
                for variant, by_seed in scores.items()
                if variant != record.base_of(variant)
            }
            rows.append(ClassScores(name, over, between))
    return rows


def _class_scores(record: AblationRecord, rows: Sequence[ClassScores]) -> Table:
    columns = [Column("class"), *(Column(variant) for variant in rows[0].over)]
    cells = [[row.name, *(plus_minus(over.mean, over.std) for over in row.over.values())] for row in rows]
    exact = [[row.name, variant, *over] for row in rows for variant, over in row.over.items()]
    caption = (f"IoU of each class on {record.split}, mean ± std over seeds; classes that occur neither in truth nor "
               "in prediction have none.")  # fmt: skip
    names = ["class", "variant", "n", "mean", "std", "ci_low", "ci_high"]
    return Table("classes", caption, columns, cells, shown=200, exact=Data(names, exact))


def _class_differences(record: AblationRecord, rows: Sequence[ClassScores]) -> Table:
    cells = [[row.name, *(with_interval(over.mean, over.low, over.high) for over in row.difference.values())]
             for row in rows]  # fmt: skip
    bold = frozenset((place, column) for place, row in enumerate(rows)
                     for column, over in enumerate(row.difference.values(), start=1) if beside_zero(over))  # fmt: skip
    exact = [[row.name, variant, *over] for row in rows for variant, over in row.difference.items()]
    caption = (f"Difference in IoU to {record.base} by class, mean over paired seeds and its 95 % interval, not "
               "adjusted. Bold: the interval lies beside 0.")  # fmt: skip
    names = ["class", "variant", "n", "difference", "std", "ci_low", "ci_high"]
    columns = [Column("class"), *(Column(name) for name in rows[0].difference)]
    return Table("class-differences", caption, columns, cells, bold=bold, shown=200, exact=Data(names, exact))


def beside_zero(over: Summary) -> bool:
    """Return whether the interval leaves out 0."""
    return over.low is not None and over.high is not None and (over.low > 0 or over.high < 0)


def _class_figure(record: AblationRecord, rows: Sequence[ClassScores]) -> Figure:
    top, others = max(rows, key=lambda row: row.largest), [*rows[0].difference]
    largest = sorted(rows, key=lambda row: -row.largest)[:MOST]
    shown = [row for row in rows if row in largest]
    which = f" The {MOST} classes of {len(rows)} that differ most." if len(shown) < len(rows) else ""
    caption = (f"Difference in IoU to {record.base} by class, mean over paired seeds, in hundredths. Frames: the 95 % "
               f"interval, not adjusted, lies beside 0.{which}")  # fmt: skip
    alt = f"Map of differences in IoU, classes by variants; the largest, {top.largest:.4f}, is of class {top.name}."

    def paint(canvas: Any, theme: Theme) -> None:
        end = 100 * (top.largest or SMALL)
        ramp = LinearSegmentedColormap.from_list("difference", [theme.series[1], theme.paper, theme.series[0]])
        means = np.array([[row.difference[name].mean for row in shown] for name in others], float)
        axes = canvas.subplots()
        image = axes.imshow(100 * np.ma.masked_invalid(means), cmap=ramp.with_extremes(bad=theme.grid), vmin=-end,
                            vmax=end, aspect="auto")  # fmt: skip
        for place, name in enumerate(others):
            for column, row in enumerate(shown):
                _write(axes, place, column, row.difference[name], len(shown) <= WRITTEN, end, theme)
        turned = sum(len(row.name) for row in shown) > 60
        axes.set_xticks(range(len(shown)), [row.name for row in shown], rotation=40 if turned else 0,
                        ha="right" if turned else "center", rotation_mode="anchor")  # fmt: skip
        axes.set_yticks(range(len(others)), map(short, others))
        axes.tick_params(length=0, labelcolor=theme.ink)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        bar = canvas.colorbar(image, ax=axes, shrink=0.9, aspect=12, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7.5)

    cells = [[row.name, name, over.n, over.mean, over.low, over.high]
             for name in others for row in shown for over in [row.difference[name]]]  # fmt: skip
    data = Data(["class", "variant", "n", "difference", "low", "high"], cells)
    return Figure("class-differences", caption, alt, paint, data, (7.6, 1.5 + 0.42 * len(others)))


def _write(axes: Any, place: int, column: int, over: Summary, written: bool, end: float, theme: Theme) -> None:
    """Write a number into its cell, and a frame around one whose interval lies beside 0."""
    if over.mean is None:
        return
    color = theme.paper if abs(100 * over.mean) > 0.62 * end else theme.ink
    if written:
        text = f"{100 * over.mean:+.1f}"
        axes.text(column, place, "0" if float(text) == 0 else text, ha="center", va="center", fontsize=7.5, color=color)
    if beside_zero(over):
        axes.plot(column, place, "s", markersize=21 if written else 6, markerfacecolor="none", markeredgecolor=color,
                  markeredgewidth=1.1)  # fmt: skip
