"""Drawing of a report's figures, once a theme: legends, marks, and panels of curves over optimizer steps."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.reporting.document import Figure
from harness.reporting.themes import MARKERS, THEMES, Theme
from harness.tables import table_csv
from trainers.figure import palette

DPI = 160
ACROSS = 5
"""Entries in a line of a legend, at most."""
NAMED = 24
"""Classes up to which colours are named."""
LINES = 300
"""Trials that a figure draws a line each of, at most: a screen shows no more."""
WORDS = {"COMPLETE": "complete", "PRUNED": "stopped early", "RUNNING": "unfinished", "INTERRUPTED": "unfinished",
         "FAIL": "failed"}  # fmt: skip
"""States for people."""


def draw(figure: Figure, folder: Path) -> list[Path]:
    """Write a figure in both themes and its numbers into a folder; return its pictures, the light one first."""
    pictures = [folder / f"{figure.name}-{theme.name}.png" for theme in THEMES]
    for picture, theme in zip(pictures, THEMES, strict=True):
        picture.write_bytes(png(figure.draw, theme, figure.size))
    (folder / f"{figure.name}.csv").write_text(table_csv(figure.data), encoding="utf-8")
    return pictures


def png(paint: Callable[[Any, Theme], None], theme: Theme, size: tuple[float, float]) -> bytes:
    """Return a PNG of what is painted; the same input gives the same bytes."""
    out = io.BytesIO()
    with rc_context(theme.settings):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(canvas)
        paint(canvas, theme)
        canvas.savefig(out, dpi=DPI, format="png", metadata={"Software": None})
    return out.getvalue()


def thinned(best_first: Sequence[int], always: Collection[int]) -> tuple[set[int], str]:
    """Return the trials that a figure draws lines of, and which they are, in words; "": all of them.

    Of more than `LINES` these are the best third, those that are `always` drawn, and a sample of the others, evenly
    from the best to the worst.
    """
    if len(best_first) <= LINES:
        return {*best_first}, ""
    best, others = best_first[: LINES // 3], best_first[LINES // 3 :]
    count = LINES - len(best)
    sample = [others[index * (len(others) - 1) // (count - 1)] for index in range(count)]
    chosen = {*best, *sample, *(number for number in best_first if number in always)}
    return chosen, f"the best {len(best)} of {len(best_first)} trials and a sample of {len(sample)} others"


def state_handles(states: Iterable[str], theme: Theme, look: Literal["mark", "line", "bar"] = "mark") -> list[Any]:
    """Return what a legend shows of these states, each word once."""
    handles: dict[str, Any] = {}
    for state in (state for state in MARKERS if state in states):
        color, label = theme.states[state], WORDS[state]
        if look == "bar":
            handles.setdefault(label, Patch(color=color, label=label))
        else:
            style: dict[str, Any] = {"markersize": 4} if look == "line" else {"markersize": 5, "linestyle": "none"}
            handles.setdefault(label, Line2D([], [], color=color, marker=MARKERS[state], label=label, **style))
    return [*handles.values()]


def legend(canvas: Any, handles: Sequence[Any]) -> None:
    """Put a legend in a row below the figure, where it covers nothing."""
    if handles:
        lines = -(-len(handles) // ACROSS)
        canvas.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // lines))


def class_handles(names: Sequence[str], theme: Theme) -> list[Patch]:
    """Return what a legend shows of classes, in the colours of pictures of them."""
    colours = zip(palette(len(names)) / 255, names, strict=False)
    return [Patch(facecolor=tuple(colour), edgecolor=theme.muted, linewidth=0.4, label=label)
            for colour, label in colours]  # fmt: skip


def best_star(axes: Any, x: float, y: float, theme: Theme) -> None:
    """Mark the best trial with a star."""
    axes.scatter([x], [y], marker="*", s=150, color=theme.best, edgecolors=theme.paper, linewidths=0.8, zorder=6)


def best_handle(theme: Theme, label: str = "best", line: bool = False) -> Line2D:
    """Return what a legend shows of the best trial."""
    return Line2D([], [], linestyle="-" if line else "none", linewidth=2.6, marker="*", markersize=10, color=theme.best,
                  label=label)  # fmt: skip


def baseline_handle(theme: Theme, label: str) -> Line2D:
    """Return what a legend shows of the baseline."""
    return Line2D([], [], linestyle="--", color=theme.ink, linewidth=1.2, label=label)


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

    They stand from left to right and from top to bottom, `across` in a row; `y_label` is of all.
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
