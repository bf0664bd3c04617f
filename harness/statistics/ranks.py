"""Rank correlation between a search's rungs and its final values, which says whether an early report tells the order.

Only trials that were not stopped have a final value. They are those that did well at the rung, so their order is judged
on a narrower range than the rung saw: correlations lean to 0, and of trials that were stopped and might have won
nothing is known. A search without a scheduler has neither fault.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

FEWEST = 3
"""Trials that a rank correlation needs."""


class Course(NamedTuple):
    """The reports of a trial."""

    values: Mapping[int, float]
    """Of the objective, by step."""
    final: float | None
    """At the horizon; none where the trial did not get there."""


class RungOrder(NamedTuple):
    """How far the order at a rung is the final order, over the trials that have both values."""

    step: int
    n: int
    """Trials with a value at the rung and a final one."""
    kendall: float | None
    """Tau-b, in [-1, 1]; none with less than 3 trials, or where one of both values is the same for all."""
    spearman: float | None
    """Rho, the same."""
    top: int | None
    """Trials of the best 1/eta at the end, n // eta of them but at least one, and more where the last ones are equal;
    none where there is no correlation."""
    kept: int | None
    """Of these, how many were in the best 1/eta at the rung, equal ones included: the rung would have let them pass."""


def rung_orders(courses: Sequence[Course], steps: Sequence[int], eta: int, maximise: bool = True) -> list[RungOrder]:
    """Return how far each rung tells the final order, a line a step.

    Args:
        courses: of all trials; those without a final value do not count.
        steps: where the rungs are. A rung at the horizon agrees with itself and is better left out.
        eta: the reduction factor: a rung lets the best 1/eta pass.
    """
    sign = 1 if maximise else -1
    orders = []
    for step in steps:
        finished = [course for course in courses if course.final is not None and step in course.values]
        early = [sign * course.values[step] for course in finished]
        late = [sign * course.final for course in finished if course.final is not None]
        correlation = rank_correlation(early, late)
        if correlation is None:
            orders.append(RungOrder(step, len(early), None, None, None, None))
            continue
        passed, best = _best(early, eta), _best(late, eta)
        orders.append(RungOrder(step, len(early), *correlation, len(best), len(passed & best)))
    return orders


def rank_correlation(values: Sequence[float], others: Sequence[float]) -> tuple[float, float] | None:
    """Return Kendall's tau-b and Spearman's rho; none with less than 3 pairs or where one side is constant."""
    if len(values) < FEWEST or len(set(values)) == 1 or len(set(others)) == 1:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # p-values of tiny samples, which nobody asked for
        return float(stats.kendalltau(values, others).statistic), float(stats.spearmanr(values, others).statistic)


def _best(values: Sequence[float], eta: int) -> set[int]:
    """Return the places of the best 1/eta, and of those that equal the last of them."""
    bar = sorted(values, reverse=True)[max(len(values) // eta, 1) - 1]
    return {place for place, value in enumerate(values) if value >= bar}
