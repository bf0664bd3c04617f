"""Student's intervals of means over seeds, of scores and of paired differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import special

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean over seeds and where it may truly lie."""

    mean: float
    std: float
    """Over seeds, with n - 1 in the denominator."""
    low: float
    high: float


class Summary(NamedTuple):
    """A mean over however many seeds there are, one and none included."""

    n: int
    mean: float | None
    """None without seeds."""
    std: float | None
    """Over seeds, with n - 1 in the denominator; none with less than two, as the interval."""
    low: float | None
    high: float | None


def t_interval(values: Sequence[float]) -> Interval:
    """Return Student's interval of 95 % of the mean: mean +- t(0.975, n - 1) s / sqrt(n).

    It supposes that seeds scatter normally; with three seeds t is 4.3, so intervals are wide, as they must be.

    Raises:
        ValueError: there are less than two values. `summary` takes any number.
    """
    n, mean, std = len(values), statistics.fmean(values), statistics.stdev(values)
    half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2)) * std / math.sqrt(n)
    return Interval(mean, std, mean - half, mean + half)


def summary(values: Sequence[float]) -> Summary:
    """Return mean, spread and interval as far as there are any: one seed has a mean and nothing else."""
    if len(values) < 2:
        return Summary(len(values), values[0] if values else None, None, None, None)
    return Summary(len(values), *t_interval(values))


def differences(values: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    """Return values - others by seed, ascending, over the seeds that both have."""
    return {seed: values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())}


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Interval:
    """Return the interval of the mean difference values - others, seed by seed: what seeds have in common cancels.

    Over the seeds that both have.

    Raises:
        ValueError: these are less than two.
    """
    return t_interval([*differences(values, others).values()])
