"""Style of variants in figures and of numbers in texts, the same in all sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.reporting.ablation.record import AblationRecord
from harness.reporting.themes import Theme

DECIMALS = 4
MARKS = ("o", "^", "D", "v", "P", "X", "h")
LINES = ("-", "-.", ":")
"""Of others than the base; the next one where the colours begin again."""
LONGEST = 26
"""Letters of a variant's name in a figure."""


def line_style(record: AblationRecord, variant: str, theme: Theme) -> dict[str, Any]:
    """Return colour, line and mark of a variant: the base in ink and dashed, others in the order of the table."""
    if variant == record.base:
        return {"color": theme.ink, "linestyle": "--", "marker": "s"}
    place = record.ablation.others.index(variant)
    turn, colour = divmod(place, len(theme.series))
    line, mark = LINES[turn % len(LINES)], MARKS[place % len(MARKS)]
    return {"color": theme.series[colour], "linestyle": line, "marker": mark}


def short(variant: str) -> str:
    """Return a name that fits into a figure."""
    return variant if len(variant) <= LONGEST else f"{variant[: LONGEST - 1]}…"


def plus_minus(mean: float | None, std: float | None) -> str | None:
    """Return `mean ± std`; the mean alone where one seed has no spread."""
    if mean is None:
        return None
    return f"{mean:.{DECIMALS}f}" + ("" if std is None else f" ± {std:.{DECIMALS}f}")


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"{value:+.{DECIMALS}f}"


def interval(low: float | None, high: float | None) -> str | None:
    """Return `[low, high]` of a difference."""
    return None if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def with_interval(value: float | None, low: float | None, high: float | None) -> str | None:
    """Return `difference [low, high]`; the difference alone where too few seeds have no interval."""
    return None if value is None else " ".join(filter(None, [signed(value), interval(low, high)]))


def count(number: int, noun: str) -> str:
    """Return `1 seed`, `3 seeds`."""
    return f"{number} {noun if number == 1 else noun + 's'}"


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
