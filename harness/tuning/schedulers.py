"""Ray Tune's schedulers by name, following the primary objective, and how one remembers what an earlier driver saw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, HyperBandScheduler, MedianStoppingRule, TrialScheduler

from harness.gangs.tune_trial import OBJECTIVE, STEP
from harness.tuning.objectives import Objective
from harness.tuning.population import Explore, GangPopulation
from trainers.errors import UsageError


class SchedulerAbilities(NamedTuple):
    """What a scheduler does with trials."""

    stops: bool
    """Whether trials that do badly end before the horizon."""
    pauses: bool
    """Whether trials are interrupted and go on later from a checkpoint."""
    remembers: bool
    """Whether `replay` can tell it what happened under an earlier driver; else it begins anew with those left."""


SCHEDULERS: Mapping[str, SchedulerAbilities] = {
    "asha": SchedulerAbilities(stops=True, pauses=False, remembers=True),
    "hyperband": SchedulerAbilities(stops=True, pauses=True, remembers=False),
    "median": SchedulerAbilities(stops=True, pauses=False, remembers=True),
    "pbt": SchedulerAbilities(stops=False, pauses=True, remembers=False),
    "none": SchedulerAbilities(stops=False, pauses=False, remembers=False),
}
"""Schedulers by name."""


class Past(NamedTuple):
    """What a trial reported under an earlier driver."""

    number: int
    """Of the trial in the search: what it is known by in every driver."""
    reports: Sequence[tuple[int, float]]
    """Steps, ascending, and the primary objective's value at each; also the report at which it was stopped."""


def make_scheduler(
    name: str,
    *,
    objective: Objective,
    horizon: int,
    grace_steps: int,
    reduction_factor: int = 3,
    min_trials: int = 3,
    perturb_steps: int | None = None,
    explore: Explore | None = None,
) -> Any:
    """Return a scheduler that reads `OBJECTIVE` and `STEP` of a result.

    It knows its metric and mode, so `TuneConfig` must be given neither.

    Args:
        horizon: optimizer steps of a full trial.
        grace_steps: optimizer steps before a trial may be stopped; HyperBand's shortest bracket and PBT's first
            exploit are no earlier.
        reduction_factor: ASHA and HyperBand keep one in this many.
        min_trials: the median rule needs this many others to compare a trial with.
        perturb_steps: optimizer steps between two exploits of PBT; none: `grace_steps`.
        explore: how PBT changes a config, from `population.explorer`.

    Raises:
        UsageError: there is no such scheduler, or the steps or factors do not fit each other.
    """
    _check(name, horizon, grace_steps, reduction_factor, explore)
    metric = {"time_attr": STEP, "metric": OBJECTIVE, "mode": objective.mode}
    if name == "asha":
        return NumberedAsha(**metric, max_t=horizon, grace_period=grace_steps, reduction_factor=reduction_factor)
    if name == "hyperband":
        return GracefulHyperBand(grace_steps, **metric, max_t=horizon, reduction_factor=reduction_factor)
    if name == "median":
        # The rule may pause a trial to let others catch up; gangs have nothing to gain from that.
        never = {"min_time_slice": math.inf}
        return NumberedMedian(**metric, **never, grace_period=grace_steps, min_samples_required=min_trials)
    if name == "pbt":
        assert explore is not None  # noqa: S101  # narrows the type; checked above
        return GangPopulation(explore, **metric, perturb_steps=perturb_steps or grace_steps, grace_steps=grace_steps)
    return FIFOScheduler()


def replay(scheduler: Any, history: Iterable[Past]) -> bool:
    """Tell a fresh scheduler what trials reported before, so that it decides as if the driver had never died.

    A trial that goes on is known again by its `number`; steps that it repeats are not counted twice. How a trial ended
    does not matter: ASHA's rungs and the median rule's averages keep what stopped and failed trials reported, too.

    Returns:
        Whether the scheduler can remember. HyperBand fills new brackets, PBT ranks by what comes.
    """
    if not isinstance(scheduler, _ByNumber):
        return False
    for number, reports in history:
        for step, value in reports:
            scheduler.remember(number, step, value)
    return True


@dataclass(frozen=True)
class _Known:
    """A trial as Ray's scheduler sees it: Tune gives it a new id, and a new object, in each driver."""

    trial_id: str

    @classmethod
    def of(cls, number: int) -> _Known:
        return cls(f"{number:05d}")


BASELINE = _Known.of(0)
"""The published baseline. It is never stopped early: the search is measured against it."""


class _ByNumber(TrialScheduler):  # type: ignore[misc]  # ray is untyped
    """Knows trials by their number in the search, and counts a report once.

    A result without a finite objective (a trial that failed) is kept from the rule: the median rule would read the
    step that it lacks and end the search.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._last: dict[_Known, int] = {}

    def remember(self, number: int, step: int, value: float) -> None:
        """Take in a report without deciding on it."""
        self._take(_Known.of(number), {STEP: step, OBJECTIVE: value})

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Take note of a trial, new or known."""
        super().on_trial_add(controller, _Known.of(trial.config["number"]))

    def on_trial_result(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Decide on a report; "go on" where it was decided before, or where there is nothing to decide on."""
        known = _Known.of(trial.config["number"])
        if known == BASELINE:
            self._take(known, result)
            return str(TrialScheduler.CONTINUE)
        if not self._is_news(known, result):
            return str(TrialScheduler.CONTINUE)
        self._last[known] = result[STEP]
        return str(super().on_trial_result(controller, known, result))

    def on_trial_complete(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """Take in the last report of a trial that reached its horizon."""
        self._take(_Known.of(trial.config["number"]), result)

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        """Forget nothing: what the trial reported stays."""

    on_trial_error = on_trial_remove

    def _take(self, known: _Known, result: Mapping[str, Any]) -> None:
        if self._is_news(known, result):
            self._last[known] = result[STEP]
            # Both rules record at the end of a trial, without deciding; ASHA forgets then which bracket it was in.
            super().on_trial_add(None, known)
            super().on_trial_complete(None, known, result)
            super().on_trial_add(None, known)

    def _is_news(self, known: _Known, result: Mapping[str, Any]) -> bool:
        return math.isfinite(result.get(OBJECTIVE, math.nan)) and result[STEP] > self._last.get(known, -1)


class NumberedAsha(_ByNumber, ASHAScheduler):  # type: ignore[misc]
    """ASHA with one bracket, whose rungs outlive the driver."""


class NumberedMedian(_ByNumber, MedianStoppingRule):  # type: ignore[misc]
    """The median stopping rule, whose averages outlive the driver."""


class GracefulHyperBand(HyperBandScheduler):  # type: ignore[misc]
    """HyperBand whose shortest bracket lets trials run for at least `grace_steps`, and whose brackets fill up.

    Ray's has brackets down to a single unit of time, which for optimizer steps is before the first report. And it takes
    a bracket for filled by the trials that are in it at once: with fewer gangs than that, trials end before others
    begin, so the first bracket, which stops nothing, would take in the whole search. Tune must not be given
    `max_concurrent_trials`: paused trials count there, and halving would find as many trials as there are gangs.
    """

    def __init__(self, grace_steps: int, **settings: Any) -> None:
        super().__init__(**settings)
        ratio = settings["max_t"] / grace_steps
        # The number of brackets in a band; 1e-9 because log(243) / log(3) falls short of 5.
        self._s_max_1 = int(math.log(ratio) / math.log(settings["reduction_factor"]) + 1e-9) + 1

    def _create_bracket(self, s: int) -> Any:
        bracket = super()._create_bracket(s)
        bracket.filled = lambda: len(bracket._all_trials) >= bracket._n0
        return bracket

    @property
    def bracket_sizes(self) -> list[tuple[int, int]]:
        """Trials and first milestone of each bracket of a band, the longest first."""
        return [(self._get_n0(s), self._get_r0(s)) for s in range(self._s_max_1)]


def _check(name: str, horizon: int, grace_steps: int, reduction_factor: int, explore: Explore | None) -> None:
    if name not in SCHEDULERS:
        raise UsageError(f"a scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}: choose one of them")
    if name != "none" and not 0 < grace_steps <= horizon:
        raise UsageError(f"grace steps must be in 1 to the horizon of {horizon} steps, got {grace_steps}: change them")
    if reduction_factor < 2:
        raise UsageError(f"the reduction factor must be at least 2, got {reduction_factor}: raise it")
    if name == "pbt" and explore is None:
        raise UsageError("pbt must have a space to explore, got none: pass explore")
