"""Power of paired t-tests: the spread of seeds, how well it is known, and how many seeds show a difference.

A paired t-test over n seeds with differences of mean delta and standard deviation s has a statistic that is distributed
as a noncentral t with n - 1 degrees of freedom and noncentrality delta sqrt(n) / s. Its power is the chance that this
lies outside the test's bounds: exact, where differences are normal.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from scipy import special

from harness.statistics.compare import ALPHA
from harness.statistics.intervals import LEVEL
from trainers.errors import UsageError

POWER = 0.8
"""Chance to find a difference that is there."""
CAUTION = 0.8
"""Chance that the true spread lies below the upper bound that seeds are planned with (Browne, 1995)."""
NEGLIGIBLE = 6.0
"""Noncentrality beyond which a find of the wrong sign has a chance below 1e-9, which scipy may return as NaN."""
DELTAS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
"""Differences in mIoU that people ask for."""
MOST_SEEDS = 10_000
"""What needs more is not said."""


class Spread(NamedTuple):
    """A standard deviation over seeds, and where it may truly lie; of scores or of differences of scores."""

    n: int
    std: float
    low: float
    """Chi-square interval of 95 %: it supposes that seeds scatter normally."""
    high: float
    upper: float
    """One-sided upper bound of 80 %."""


class Needed(NamedTuple):
    """How many seeds show a difference. None: more than 10 000."""

    delta: float
    seeds: int | None
    """If the spread is the estimated one: as likely too few as enough."""
    seeds_upper: int | None
    """If the spread is its upper bound: enough four times in five."""


def spread(values: Sequence[float]) -> Spread:
    """Return the standard deviation of a configuration's scores over seeds, or of paired differences.

    Raises:
        UsageError: there are less than two.
    """
    n = len(values)
    if n < 2:
        raise UsageError(f"a spread must have at least 2 seeds, got {n}: train with more")
    std = statistics.stdev(values)
    tails = ((1 + LEVEL) / 2, (1 - LEVEL) / 2, 1 - CAUTION)
    low, high, upper = (std * math.sqrt((n - 1) / float(special.chdtri(n - 1, 1 - tail))) for tail in tails)
    return Spread(n, std, low, high, upper)


def spread_of_differences(scores: Spread, rho: float = 0.0) -> Spread:
    """Return the spread of paired differences between two configurations that scatter alike: sqrt(2 (1 - rho)) std.

    What it cannot know is rho, how far a seed that is good for one is good for the other. 0 is the cautious default.
    Where two configurations were trained with the same seeds, `spread` of their differences is measured and better.

    Raises:
        UsageError: rho is not in [-1, 1).
    """
    if not -1 <= rho < 1:
        raise UsageError(f"a correlation of seeds must be in [-1, 1), got {rho}: 0 is the cautious choice")
    factor = math.sqrt(2 * (1 - rho))
    return Spread(scores.n, *(factor * value for value in scores[1:]))


def power(delta: float, std: float, n: int) -> float:
    """Return the chance that a paired t-test at 0.05, two-sided, over n >= 2 seeds finds a difference of delta.

    The true standard deviation of the differences must be above 0.
    """
    bound = float(special.stdtrit(n - 1, 1 - ALPHA / 2))
    far = abs(delta) * math.sqrt(n) / std
    wrong_side = float(special.nctdtr(n - 1, far, -bound)) if far < NEGLIGIBLE else 0.0
    return 1 - float(special.nctdtr(n - 1, far, bound)) + wrong_side


def seeds_needed(delta: float, std: float) -> int | None:
    """Return the smallest number of seeds with which a paired t-test has power 0.8; none above 10 000.

    With a standard deviation of paired differences of 0, two seeds show anything.

    Raises:
        UsageError: delta is 0 or not finite.
    """
    if delta == 0 or not math.isfinite(delta):
        must = "a difference to be found must be finite and not 0"
        raise UsageError(f"{must}, got {delta}: name the smallest that counts")
    if std == 0:
        return 2
    seeds = bisect_left(range(MOST_SEEDS + 1), POWER, lo=2, key=lambda n: power(delta, std, n))
    return seeds if seeds <= MOST_SEEDS else None


def seeds_table(between: Spread, deltas: Sequence[float]) -> list[Needed]:
    """Return how many seeds show each difference (not 0), if paired differences spread as estimated and at most so.

    `between` is from `spread_of_differences`, or from `spread` of measured ones.
    """
    return [Needed(delta, seeds_needed(delta, between.std), seeds_needed(delta, between.upper)) for delta in deltas]
