"""Synthetic objectives with known optima, for `bench_truth.py`. All were fixed by the reasoning below before any run.

Three parameters in [0, 1]: `rate`, which changes the shape of the learning curve, and `u`, `v`, which do not. A curve
is the noise-free value in [0, 1] after `step` of HORIZON steps, larger is better; what a trial reports has noise on
it. The place of the optimum is drawn anew with every seed. ASHA's rungs are at 3, 9, 27 and 81 steps.

The stock searcher tells Optuna "COMPLETE, with this value" of a trial that was stopped at a rung. When does that hurt?
TPE separates the best 10 % of the trials from the rest and draws near them. A trial that was stopped is among the
rest either way, as long as its early value is below the final values of the best. So:

parallel  Curves rise with one time constant and never cross: early values are low and in the right order. No
          difference is expected: the control.
hasty     A higher rate learns faster and saturates lower (the best rate is low), so curves cross: after few steps the
          ranking is by speed. It misleads ASHA, and both searchers alike through it. An early value is still below the
          final values of good configurations, so little difference is expected between the searchers.
decaying  Every configuration peaks early and falls (noisy pseudo-labels that confirm themselves, a loss whose weights
          are ramped up, overfitting), by an amount that only `rate` decides, and that the first rungs cannot see.
          Early values exceed the final values of the best configurations: a stopped trial looks better than all
          complete ones. The truthful searcher is expected to win, and the stock study's best trial to be one that
          was stopped.
edge      As `parallel`, but above a rate just beyond the best one a trial diverges at its second report: nearly half of
          the space. Stock leaves those RUNNING, and TPE keeps away from RUNNING trials as if they were bad; the
          truthful searcher tells FAIL, which TPE does not look at. Keeping away spares failures, but also the
          neighbourhood of the optimum; the sign is open.
pit       As `edge`, with the diverging quarter of the space far from the optimum. Keeping away costs nothing here, so
          stock is expected to be as good, or a little better.

The budget that a diverging trial uses is the same with both searchers: it ends at the report that is not a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

HORIZON = 81
REPORT_EVERY = 3
NOISE = 0.005
"""Standard deviation of a report."""
NAMES = ("rate", "u", "v")
BASELINE: Mapping[str, float] = {"rate": 0.5, "u": 0.5, "v": 0.5}
"""Trial 0 of both searchers."""

Point = Mapping[str, float]


class Optimum(NamedTuple):
    """Where an objective of one seed has its bowl; `value` is the largest value at the horizon anywhere."""

    rate: float
    u: float
    v: float
    value: float


Curve = Callable[[Point, Optimum, float], float]
"""Value at a point, given the bowl, after a share of the horizon in (0, 1]; not a number where the trial diverged."""


class Objective(NamedTuple):
    """One of the shapes above."""

    name: str
    curve: Curve
    rates: tuple[float, float]
    """The bowl's rate is drawn from this range; its `u` and `v` from [0.2, 0.8]."""

    def place(self, seed: int) -> Optimum:
        """Return the bowl of a seed and the best value at the horizon, which lies at the bowl's u and v."""
        draws = np.random.default_rng([seed, 1])
        bowl = Optimum(draws.uniform(*self.rates), *draws.uniform(0.2, 0.8, size=2), value=math.nan)

        def loss(rate: float) -> float:
            value = self.curve({"rate": rate, "u": bowl.u, "v": bowl.v}, bowl, 1.0)
            return 0.0 if math.isnan(value) else -value

        grid = np.linspace(0, 1, 2001)
        best = grid[int(np.argmin([loss(rate) for rate in grid]))]
        refined = minimize_scalar(loss, bounds=(max(best - 5e-4, 0), min(best + 5e-4, 1)), method="bounded")
        return bowl._replace(value=-min(refined.fun, loss(best)))


def _bowl(point: Point, at: Optimum) -> float:
    return 0.8 - 0.8 * sum((point[name] - getattr(at, name)) ** 2 for name in NAMES)


def parallel(point: Point, at: Optimum, share: float) -> float:
    """One time constant, a quarter of the horizon."""
    return max(_bowl(point, at), 0.05) * (1 - math.exp(-4 * share))


def hasty(point: Point, at: Optimum, share: float) -> float:
    """Time constants from half of the horizon (rate 0) to 3 % of it (rate 1)."""
    return max(_bowl(point, at), 0.05) * (1 - math.exp(-share / (0.5 - 0.47 * point["rate"])))


def decaying(point: Point, at: Optimum, share: float) -> float:
    """Up within a tenth of the horizon, then down by 25 % at the best rate and by up to 85 % at others."""
    level = max(0.8 - 0.8 * ((point["u"] - at.u) ** 2 + (point["v"] - at.v) ** 2), 0.05)
    fall = 0.25 + 0.6 * min(abs(point["rate"] - at.rate) / 0.5, 1.0)
    return level * (1 - math.exp(-30 * share)) * (1 - fall * share * share * (3 - 2 * share))


def _diverging_above(margin: float) -> Curve:
    def curve(point: Point, at: Optimum, share: float) -> float:
        diverged = point["rate"] > at.rate + margin and share > 1.5 * REPORT_EVERY / HORIZON
        return math.nan if diverged else parallel(point, at, share)

    return curve


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("parallel", parallel, (0.2, 0.8)),
        Objective("hasty", hasty, (0.2, 0.4)),
        Objective("decaying", decaying, (0.2, 0.8)),
        Objective("edge", _diverging_above(0.05), (0.4, 0.6)),
        Objective("pit", _diverging_above(0.45), (0.2, 0.4)),
    )
}
