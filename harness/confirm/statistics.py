"""Intervals over seeds, and what follows from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean over seeds and where it may truly lie."""

    mean: float
    std: float
    """Over seeds, with n - 1 in the denominator."""
    low: float
    high: float


def t_interval(values: Sequence[float]) -> Interval:
    """Return Student's interval of 95 % of the mean: mean +- t(0.975, n - 1) s / sqrt(n).

    It supposes that seeds scatter normally; with three seeds t is 4.3, so intervals are wide, as they must be.
    """
    from scipy import stats

    n, mean, std = len(values), statistics.fmean(values), statistics.stdev(values)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / math.sqrt(n)
    return Interval(mean, std, mean - half, mean + half)


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Interval:
    """Return the interval of the mean difference values - others, seed by seed: what seeds have in common cancels."""
    return t_interval([values[seed] - others[seed] for seed in sorted(values)])


def choose(scores: Mapping[str, Mapping[int, float]]) -> str:
    """Return the label whose mean has the highest lower bound; of equal ones the first.

    The lower bound, and not the mean, prefers what is good with every seed to what is very good with one.
    """
    return max(scores, key=lambda label: t_interval([*scores[label].values()]).low)


def verdict(difference: Interval, chosen: str, metric: str) -> str:
    """Return whether tuning beat the noise, in one line; `difference` is that of the chosen one to the baseline."""
    numbers = f"{metric} {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    if difference.low > 0:
        return f"tuning beat the noise: {chosen} - baseline is {numbers}"
    if difference.high < 0:
        return f"the published baseline is better: {chosen} - baseline is {numbers}"
    return f"tuning did not beat the noise: {chosen} - baseline is {numbers}, which holds 0"
