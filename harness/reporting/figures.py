"""Draws the figures of a report once a theme, and keeps the numbers they show."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.reporting.themes import MARKERS, THEMES, Theme
from harness.tables import table_csv

if TYPE_CHECKING:
    from harness.reporting.document import Figure

DPI = 160
ACROSS = 5
"""Entries in a line of a legend, at most."""
WORDS = {
    "COMPLETE": "complete",
    "PRUNED": "stopped early",
    "RUNNING": "unfinished",
    "INTERRUPTED": "unfinished",
    "FAIL": "failed",
}
"""States for people."""


class Drawn(NamedTuple):
    """Files of a figure."""

    light: Path
    dark: Path
    data: Path


def draw(figure: Figure, folder: Path) -> Drawn:
    """Write a figure in both themes and its numbers into a folder, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {theme.name: folder / f"{figure.name}-{theme.name}.png" for theme in THEMES}
    for theme in THEMES:
        pictures[theme.name].write_bytes(png(figure.draw, theme, figure.size))
    data = folder / f"{figure.name}.csv"
    data.write_text(table_csv(figure.data), encoding="utf-8")
    return Drawn(pictures["light"], pictures["dark"], data)


def png(paint: Callable[[Any, Theme], None], theme: Theme, size: tuple[float, float]) -> bytes:
    """Return a PNG of what is painted; the same input gives the same bytes."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    out = io.BytesIO()
    with rc_context(theme.settings):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(canvas)
        paint(canvas, theme)
        canvas.savefig(out, dpi=DPI, format="png", metadata={"Software": None})
    return out.getvalue()


def state_handles(states: Iterable[str], theme: Theme, look: Literal["mark", "line", "bar"] = "mark") -> list[Any]:
    """Return what a legend shows of these states, each word once."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found: dict[str, Any] = {}
    for state in (state for state in MARKERS if state in states):
        color, label = theme.states[state], WORDS[state]
        if look == "bar":
            handle: Any = Patch(color=color, label=label)
        elif look == "line":
            handle = Line2D([], [], color=color, marker=MARKERS[state], markersize=4, label=label)
        else:
            handle = Line2D([], [], color=color, marker=MARKERS[state], markersize=5, linestyle="none", label=label)
        found.setdefault(label, handle)
    return [*found.values()]


def legend(canvas: Any, handles: list[Any]) -> None:
    """Put a legend in a row below the figure, where it covers nothing."""
    if handles:
        lines = -(-len(handles) // ACROSS)
        canvas.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // lines))


def best_star(axes: Any, x: float, y: float, theme: Theme) -> None:
    """Mark the best trial with a star."""
    axes.scatter([x], [y], marker="*", s=150, color=theme.best, edgecolors=theme.paper, linewidths=0.8, zorder=6)


def best_handle(theme: Theme, label: str = "best", line: bool = False) -> Any:
    """Return what a legend shows of the best trial."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        linestyle="-" if line else "none",
        linewidth=2.6,
        marker="*",
        markersize=10,
        color=theme.best,
        label=label,
    )


def baseline_handle(theme: Theme, label: str = "published baseline") -> Any:
    """Return what a legend shows of the baseline."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="--", color=theme.ink, linewidth=1.2, label=label)
