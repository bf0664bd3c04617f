"""Panels of curves over optimizer steps: lines with or without bands, a title a panel, one legend for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.lines import Line2D

from harness.reporting.figures import legend


@dataclass(frozen=True)
class Curve:
    """A line in a panel."""

    points: Sequence[tuple[float, float]]
    """Steps, ascending, and values; without any, nothing is drawn."""
    style: Mapping[str, Any]
    """Of the line, as matplotlib names it: `color`, `linestyle`, `marker` and more."""
    label: str = ""
    """In the legend, once for all panels; empty: not there."""
    band: Sequence[tuple[float, float]] = ()
    """The lowest and the highest value at each step; empty: no band."""


def paint_panels(
    canvas: Any,
    panels: Sequence[tuple[str, Sequence[Curve]]],
    across: int = 1,
    y_label: str = "",
    share_y: bool = False,
) -> list[Any]:
    """Draw panels over the same steps, each a title and its curves, and the legend of all labels; return their axes.

    Args:
        canvas: an empty figure of matplotlib.
        panels: from left to right and from top to bottom.
        across: panels in a row.
        y_label: of all panels.
        share_y: whether all have the same scale.
    """
    down = -(-len(panels) // across)
    grid = [*canvas.subplots(down, across, squeeze=False, sharex=True, sharey=share_y).ravel()]
    entries: dict[str, Line2D] = {}
    for place, (axes, (title, curves)) in enumerate(zip(grid, panels, strict=False)):
        for curve in curves:
            if curve.points:
                steps, values = zip(*curve.points, strict=True)
                axes.plot(steps, values, **curve.style)
                if curve.band:
                    low, high = zip(*curve.band, strict=True)
                    axes.fill_between(steps, low, high, color=curve.style["color"], alpha=0.2, linewidth=0)
                if curve.label:
                    entries[curve.label] = Line2D([], [], **{**curve.style, "markersize": 4, "label": curve.label})
        axes.set_title(title)
        axes.set_xlim(left=0)
        axes.tick_params(labelbottom=True)
        if place + across >= len(panels):
            axes.set_xlabel("optimizer step", fontsize=8 if title else None)
    for axes in grid[len(panels) :]:
        axes.remove()
    if len(panels) == 1:
        grid[0].set_ylabel(y_label)
    elif y_label:
        canvas.supylabel(y_label, fontsize=9)
    legend(canvas, [*entries.values()])
    return grid[: len(panels)]
