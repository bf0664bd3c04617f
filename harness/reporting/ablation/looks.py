"""How variants look: the base and each other one have the same colour, line and mark in every figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.reporting.ablation.record import AblationRecord
    from harness.reporting.themes import Theme

MARKS = ("o", "^", "D", "v", "P", "X", "h")
LINES: tuple[Literal["-", "-.", ":"], ...] = ("-", "-.", ":")
"""Of others than the base; the next one where the colours begin again."""
LONGEST = 26
"""Letters of a variant's name in a figure."""


class Look(NamedTuple):
    """Of a variant in a theme."""

    color: str
    line: Literal["-", "--", "-.", ":"]
    mark: str


def look_of(record: AblationRecord, variant: str, theme: Theme) -> Look:
    """Return the look of a variant: the base in ink and dashed, others in the order of the table."""
    if variant == record.found.request.base:
        return Look(theme.ink, "--", "s")
    place = record.found.others.index(variant)
    turn, colour = divmod(place, len(theme.series))
    return Look(theme.series[colour], LINES[turn % len(LINES)], MARKS[place % len(MARKS)])


def handles(record: AblationRecord, variants: Sequence[str], theme: Theme) -> list[Any]:
    """Return what a legend shows of variants."""
    from matplotlib.lines import Line2D

    found = []
    for variant in variants:
        look = look_of(record, variant, theme)
        found.append(
            Line2D([], [], color=look.color, linestyle=look.line, marker=look.mark, markersize=4, label=short(variant))
        )
    return found


def short(variant: str) -> str:
    """Return a name that fits into a figure."""
    return variant if len(variant) <= LONGEST else f"{variant[: LONGEST - 1]}…"
