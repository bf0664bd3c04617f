"""Arithmetic of a search's cost: steps, hours, devices and disk from measured times."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from scipy.special import digamma

from harness.tuning.config import rungs

SAVE_INTERVAL_S = 30.0
"""Least time between two checkpoints of a trial, as in `SearchConfig.save_interval_s`."""
MIN_FREE = 2**28
"""Bytes of its disk that a search leaves free, as in `SearchConfig.min_free_gib`."""
LIVE = 3
"""Files of a trial that a gang trains: the latest checkpoint, the one before it, and the one being written."""
PAUSED = 4
"""Files of a trial that a scheduler pauses or copies: the latest, the one before it, and two that were saved apart."""
POPULATION = frozenset({"hyperband", "pbt"})
"""Schedulers that pause trials or copy them, so that every trial may have checkpoints at once."""


class Range(NamedTuple):
    """A quantity that depends on what the scheduler will stop."""

    expected: float
    least: float
    """If every trial but the first were stopped at its first chance."""
    most: float
    """If none were stopped."""


@dataclass(frozen=True)
class Shape:
    """Numbers of a search."""

    trials: int
    gangs: int
    """Trials that run at once; at most `trials`."""
    workers_per_gang: int
    horizon: int
    """Optimizer steps of a full trial."""
    every: int
    """Steps between two reports; the last step reports, too."""
    scheduler: str
    """`asha`, `none`, or another whose decisions are not foreseen: then the expectation is that nothing is stopped."""
    grace_steps: int
    reduction_factor: int

    devices_per_worker: float = 1.0
    """GPUs, or CPUs, that a worker holds."""

    @property
    def workers(self) -> int:
        """Processes that train."""
        return self.gangs * self.workers_per_gang


@dataclass(frozen=True)
class Pace:
    """What was measured of one trial."""

    step_s: float
    evaluate_s: float
    """An evaluation at a report."""
    save_s: float
    """Writing a checkpoint."""
    start_s: float
    """From a config to a network that can be trained, in a process that is warm."""
    checkpoint_bytes: int

    def trial_s(self, steps: int, shape: Shape) -> float:
        """Return the seconds of a trial that ends after these steps, checkpoints and evaluations among them."""
        reports = -(-steps // shape.every)
        seconds = self.start_s + steps * self.step_s + reports * self.evaluate_s
        saves = min(reports, int(seconds / SAVE_INTERVAL_S) + (steps == shape.horizon))
        return seconds + saves * self.save_s


class Ends(NamedTuple):
    """Trials, expected, that end after a number of steps."""

    steps: int
    trials: float


def decisions(shape: Shape) -> list[int]:
    """Return the steps of the reports at which ASHA may stop a trial.

    Ray's ASHA decides one rung a report, the highest that is reached and not decided yet. A rung between two reports is
    decided at the next one.
    """
    pending = rungs(shape.horizon, shape.grace_steps, shape.reduction_factor)
    reports = []
    for report in range(shape.every, shape.horizon, shape.every):
        reached = [rung for rung in pending if rung <= report]
        if reached:
            pending.remove(reached[-1])
            reports.append(report)
    return reports


def expected_passes(arrivals: float, reduction_factor: int) -> float:
    """Return how many of the trials that arrive at a rung one by one are expected to pass it.

    Ray's ASHA lets a trial pass whose value is not below the (1 - 1/eta) percentile, with linear interpolation, of
    those that came before. The first always passes. Of exchangeable trials the one after j others has j + 1 equally
    likely places among them, and passes with probability (j / eta + 1 - 1 / eta) / (j + 1), up to the interpolation
    (exact for uniform values). Summed over n arrivals:

        1 + (n - 1) / eta + (1 - 2 / eta) (H(n) - 1),    H(n) = 1 + 1/2 + ... + 1/n

    so what deciding at once costs beyond n / eta grows with log n. A sampler that gets better makes more trials pass.
    """
    if arrivals <= 1:
        return arrivals
    harmonic = float(digamma(arrivals + 1)) + 0.5772156649015329
    return 1 + (arrivals - 1) / reduction_factor + (1 - 2 / reduction_factor) * (harmonic - 1)


def expected_ends(shape: Shape) -> list[Ends]:
    """Return where trials are expected to end, by steps; the last entry is the horizon."""
    ends, arrivals = [], float(shape.trials)
    for step in decisions(shape) if shape.scheduler == "asha" else []:
        passing = expected_passes(arrivals, shape.reduction_factor)
        ends.append(Ends(step, arrivals - passing))
        arrivals = passing
    return [*ends, Ends(shape.horizon, arrivals)]


def least_ends(shape: Shape) -> list[Ends]:
    """Return where trials end if the first goes to the horizon and all others are stopped at the first chance."""
    first = -(-shape.grace_steps // shape.every) * shape.every
    if shape.scheduler in ("none", "pbt") or first >= shape.horizon:
        return most_ends(shape)
    return [Ends(first, shape.trials - 1), Ends(shape.horizon, 1)]


def most_ends(shape: Shape) -> list[Ends]:
    """Return where trials end if none is stopped."""
    return [Ends(shape.horizon, shape.trials)]


def total_steps(shape: Shape) -> Range:
    """Return the optimizer steps of all trials together."""
    return _range(shape, lambda ends: sum(trials * steps for steps, trials in ends))


def busy_s(shape: Shape, pace: Pace) -> Range:
    """Return the seconds that gangs train, added up over gangs."""
    return _range(shape, lambda ends: sum(trials * pace.trial_s(steps, shape) for steps, trials in ends))


def wall_s(shape: Shape, pace: Pace) -> Range:
    """Return the seconds from the first trial's start to the last one's end; Ray's own start is not among them.

    A gang takes the next trial as soon as it is free, so the time is at least busy / gangs, and at least that of a full
    trial; at the end, gangs wait for the last one, between nothing and (1 - 1 / gangs) of a full trial, of which half
    is expected. Where nothing is stopped, trials run in rounds.
    """
    full = pace.trial_s(shape.horizon, shape)
    busy = busy_s(shape, pace)
    rounds = math.ceil(shape.trials / shape.gangs) * full
    expected = max(full, busy.expected / shape.gangs + (1 - 1 / shape.gangs) / 2 * full)
    if busy.expected == busy.most:
        expected = rounds
    return Range(min(expected, rounds), max(full, busy.least / shape.gangs), rounds)


def device_s(shape: Shape, pace: Pace) -> Range:
    """Return the seconds of wall clock times the devices: gangs keep theirs from the start to the end."""
    return Range(*(seconds * shape.workers * shape.devices_per_worker for seconds in wall_s(shape, pace)))


def most_checkpoints(shape: Shape, keep: int) -> int:
    """Return how many checkpoint files lie on the disk at once, at most.

    Those of the best `keep` complete trials, of the baseline, and of the live trials. Under a scheduler that pauses or
    copies trials all of them may be live.
    """
    if shape.scheduler in POPULATION:
        return PAUSED * shape.trials + shape.gangs
    return min(keep + 1, shape.trials) + LIVE * shape.gangs


def most_trials(shape: Shape, fits: Callable[[Shape], bool]) -> int:
    """Return the largest number of trials, below that of the shape, that fits; 0: none does."""

    def too_many(trials: int) -> bool:
        return not fits(replace(shape, trials=trials, gangs=min(shape.gangs, trials)))

    return bisect(range(1, shape.trials), False, key=too_many)


def least_gangs(shape: Shape, most: int, fits: Callable[[Shape], bool]) -> int | None:
    """Return the smallest number of gangs above that of the shape that fits, up to `most`; none where none does."""
    more = range(shape.gangs + 1, min(most, shape.trials) + 1)
    return next((gangs for gangs in more if fits(replace(shape, gangs=gangs))), None)


def _range(shape: Shape, of: Callable[[list[Ends]], float]) -> Range:
    return Range(of(expected_ends(shape)), of(least_ends(shape)), of(most_ends(shape)))
