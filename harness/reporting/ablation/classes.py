"""Where differences come from: the IoU of single classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reporting.ablation.looks import short
from harness.reporting.ablation.words import plus_minus, with_interval
from harness.reporting.document import Block, Column, Data, Figure, Note, Section, Table
from harness.statistics.intervals import Summary, differences, summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.reporting.ablation.record import AblationRecord
    from harness.reporting.document import Cell
    from harness.reporting.themes import Theme

MOST = 40
"""Classes that the figure shows; tables hold all."""
SMALL = 0.01
"""Where the colours end if no difference is other than 0."""
WRITTEN = 24
"""Classes up to which the figure writes its numbers."""


@dataclass(frozen=True)
class ClassScores:
    """IoU of a class, and of every variant its paired difference to the base."""

    name: str
    over: Mapping[str, Summary]
    """By variant."""
    difference: Mapping[str, Summary]
    """By variant beside the base, over paired seeds."""

    @property
    def largest(self) -> float:
        """The largest mean difference, whatever its sign."""
        return max((abs(one.mean) for one in self.difference.values() if one.mean is not None), default=0.0)


def classes(record: AblationRecord) -> Section:
    """Return the section."""
    found = by_class(record)
    if not found:
        why = f"No complete training has scores of single classes (`{record.split}/iou/...`)."
        return Section("Classes", [Note(why, "missing")])
    blocks: list[Block] = []
    if any(one.mean is not None for each in found for one in each.difference.values()):
        few = all(one.low is None for each in found for one in each.difference.values())
        count = len(found) * len(record.found.others)
        blocks = [_figure(record, found), _differences(record, found)]
        if not few:
            blocks.insert(0, Note(
                f"These are {count} differences, and their intervals are not adjusted for being so many: where no "
                f"class differs, about {0.05 * count:.2g} of them lie beside 0 all the same. They say where to look, "
                "not what is so.", "caution"))  # fmt: skip
    return Section("Classes", [*blocks, _scores(record, found)])


def by_class(record: AblationRecord) -> list[ClassScores]:
    """Return the scores of each class that any complete training has a score of, in the order of the data."""
    found, base = record.found, record.found.request.base
    result = []
    for name in found.request.config.data.classes:
        metric = f"{record.split}/iou/{name}"
        scores = {variant: found.scores(variant, metric) for variant in record.variants}
        if any(scores.values()):
            between = {
                other: summary([*differences(scores[other], scores[base]).values()]) for other in found.others
            }  # fmt: skip
            over = {variant: summary([*values.values()]) for variant, values in scores.items()}
            result.append(ClassScores(name, over, between))
    return result


def _scores(record: AblationRecord, found: Sequence[ClassScores]) -> Table:
    columns = [Column("class"), *(Column(variant) for variant in record.variants)]
    rows = [
        [one.name, *(plus_minus(one.over[variant].mean, one.over[variant].std) for variant in record.variants)]
        for one in found
    ]
    exact = [[one.name, variant, *one.over[variant]] for one in found for variant in record.variants]
    caption = (f"IoU of each class on {record.split}, mean ± std over seeds; classes that occur neither in truth nor "
               "in prediction have none.")  # fmt: skip
    names = ["class", "variant", "n", "mean", "std", "ci_low", "ci_high"]
    return Table("classes", caption, columns, rows, shown=200, exact=Data(names, exact))


def _differences(record: AblationRecord, found: Sequence[ClassScores]) -> Table:
    others = record.found.others
    rows: list[list[Cell]] = []
    for one in found:
        rows.append(
            [one.name, *(with_interval(s.mean, s.low, s.high) for s in (one.difference[name] for name in others))]
        )
    bold = frozenset(
        (row, column + 1) for row, one in enumerate(found) for column, name in enumerate(others)
        if beside_zero(one.difference[name])
    )  # fmt: skip
    exact = [[one.name, name, *one.difference[name]] for one in found for name in others]
    caption = (f"Difference in IoU to {record.found.request.base} by class, mean over paired seeds and its 95 % "
               "interval, not adjusted. Bold: the interval lies beside 0.")  # fmt: skip
    names = ["class", "variant", "n", "difference", "std", "ci_low", "ci_high"]
    columns = [Column("class"), *(Column(name) for name in others)]
    return Table("class-differences", caption, columns, rows, bold=bold, shown=200, exact=Data(names, exact))


def beside_zero(over: Summary) -> bool:
    """Return whether the interval leaves out 0."""
    return over.low is not None and over.high is not None and (over.low > 0 or over.high < 0)


def _figure(record: AblationRecord, found: Sequence[ClassScores]) -> Figure:
    others, base = record.found.others, record.found.request.base
    largest = sorted(found, key=lambda one: -one.largest)[:MOST]
    shown = [one for one in found if one in largest]
    which = f" The {MOST} classes of {len(found)} that differ most." if len(shown) < len(found) else ""
    top = shown[0] if not others else max(shown, key=lambda one: one.largest)
    caption = (f"Difference in IoU to {base} by class, mean over paired seeds, in hundredths. Frames: the 95 % "
               f"interval, not adjusted, lies beside 0.{which}")  # fmt: skip
    alt = f"Map of differences in IoU, classes by variants; the largest, {top.largest:.4f}, is of class {top.name}."

    def paint(canvas: Any, theme: Theme) -> None:
        import numpy as np
        from matplotlib.colors import LinearSegmentedColormap

        means = [[_number(one.difference[name].mean) for one in shown] for name in others]
        end = max((one.largest for one in shown), default=0.0) or SMALL
        colours = [theme.series[1], theme.paper, theme.series[0]]
        ramp = LinearSegmentedColormap.from_list("difference", colours).with_extremes(bad=theme.grid)
        axes = canvas.subplots()
        hundredths = 100 * np.ma.masked_invalid(means)
        image = axes.imshow(hundredths, cmap=ramp, vmin=-100 * end, vmax=100 * end, aspect="auto")
        for row, name in enumerate(others):
            for column, one in enumerate(shown):
                _write(axes, row, column, one.difference[name], len(shown) <= WRITTEN, end, theme)
        axes.set_xticks(range(len(shown)), [one.name for one in shown], rotation=_turn(shown), ha=_side(shown),
                        rotation_mode="anchor")  # fmt: skip
        axes.set_yticks(range(len(others)), [short(name) for name in others])
        axes.tick_params(length=0, labelcolor=theme.ink)
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)
        bar = canvas.colorbar(image, ax=axes, shrink=0.9, aspect=12, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7.5)

    rows = [[one.name, name, one.difference[name].n, one.difference[name].mean, one.difference[name].low,
             one.difference[name].high] for name in others for one in shown]  # fmt: skip
    data = Data(["class", "variant", "n", "difference", "low", "high"], rows)
    return Figure("class-differences", caption, alt, paint, data, (7.6, 1.5 + 0.42 * len(others)))


def _write(axes: Any, row: int, column: int, over: Summary, written: bool, end: float, theme: Theme) -> None:
    """Write a number into its cell, and a frame around one whose interval lies beside 0."""
    if over.mean is None:
        return
    color = theme.paper if abs(over.mean) > 0.62 * end else theme.ink
    if written:
        axes.text(column, row, _hundredths(over.mean), ha="center", va="center", fontsize=7.5, color=color)
    if beside_zero(over):
        axes.plot(column, row, "s", markersize=21 if written else 6, markerfacecolor="none", markeredgecolor=color,
                  markeredgewidth=1.1)  # fmt: skip


def _hundredths(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return "0" if text in ("+0.0", "-0.0") else text


def _turn(shown: Sequence[ClassScores]) -> int:
    return 40 if sum(len(one.name) for one in shown) > 60 else 0


def _side(shown: Sequence[ClassScores]) -> str:
    return "right" if _turn(shown) else "center"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
