"""How the report of an ablation writes numbers and counts."""

from __future__ import annotations

from collections.abc import Sequence

DECIMALS = 4


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
    if value is None:
        return None
    return " ".join(part for part in (signed(value), interval(low, high)) if part)


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 seed`, `3 seeds`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
