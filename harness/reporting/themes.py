"""Themes of a report, light and dark: colours of the page and of figures.

States have the same colour in every figure and a shape of their own besides, so that nothing rests on colour alone. The
hues are apart for people who see two of the three primaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Theme:
    """Colours, as `#rrggbb`."""

    name: str
    """`light` or `dark`; part of the names of files."""
    paper: str
    ink: str
    muted: str
    """Of what is said besides: axes, captions."""
    grid: str
    best: str
    states: Mapping[str, str]
    """By the state of a trial."""
    series: tuple[str, ...]
    """Of curves that are told apart, in this order."""
    ramp: str
    """Matplotlib's map from values to colours: what is high stands out from the paper."""

    @property
    def settings(self) -> Any:
        """Matplotlib's settings."""
        return {
            "figure.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.edgecolor": self.muted,
            "axes.titlesize": 9,
            "axes.titlelocation": "left",
            "axes.labelsize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.8,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "font.size": 9,
            "font.family": "DejaVu Sans",
            "legend.frameon": False,
            "legend.fontsize": 8,
            "lines.linewidth": 1.4,
        }


MARKERS = {"COMPLETE": "o", "PRUNED": "v", "RUNNING": "s", "INTERRUPTED": "s", "FAIL": "X"}
"""Shapes, by the state of a trial."""
LIGHT = Theme(
    name="light", paper="#ffffff", ink="#1b1f24", muted="#59636e", grid="#e8ebee", best="#008573",
    states={"COMPLETE": "#0072b2", "PRUNED": "#9aa3ad", "RUNNING": "#e07b1f", "INTERRUPTED": "#e07b1f",
            "FAIL": "#c4281c"},
    series=("#0072b2", "#d55e00", "#008573", "#b5609b", "#8a6d00", "#4b9fd5", "#59636e"), ramp="viridis_r",
)  # fmt: skip
DARK = Theme(
    name="dark", paper="#161b21", ink="#e6e9ec", muted="#9aa4af", grid="#2b323a", best="#2fd1b2",
    states={"COMPLETE": "#56b4e9", "PRUNED": "#6f7a86", "RUNNING": "#f2c35b", "INTERRUPTED": "#f2c35b",
            "FAIL": "#ff6f61"},
    series=("#56b4e9", "#f28e4b", "#2fd1b2", "#dc91c4", "#e3c04c", "#a8d4f2", "#9aa4af"), ramp="viridis",
)  # fmt: skip
THEMES = (LIGHT, DARK)
