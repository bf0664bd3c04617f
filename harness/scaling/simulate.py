"""Simulation of searches: how long many trials take with G gangs of N workers, and what failures cost. Pure, seeded.

Events, not formulas: each gang takes the next trial as soon as it is free. A trial's length is drawn, with replacement,
from those of a search that ran. Failures strike each worker at random with a constant rate while its gang trains; one
costs the gang the work since the last checkpoint and the time of a restart, and a trial that is struck more often than
it may be retried is lost with all its time. What is not in it: samplers that get better and so pass more trials,
whole nodes that fail at once and take several gangs with them, gangs that slow each other down.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

HOUR_S, DAY_S = 3600.0, 86400.0
REPEATS = 100
"""Simulated searches for each row of a table."""
SHARE = 0.9
"""Of the simulated searches, what the interval holds."""


@dataclass(frozen=True)
class Faults:
    """How workers fail, and what a failure costs."""

    per_worker_day: float = 0.0
    """Expected failures of a worker in 24 hours of training."""
    restart_s: float = 15.0
    """From the failure to the next step: noticed, processes started, checkpoint read."""
    checkpoint_s: float = 30.0
    """Time between two checkpoints of a trial."""
    retries: int = 2
    """How often a trial goes on after its gang was lost; the next failure fails the trial."""


@dataclass(frozen=True)
class Cluster:
    """What a search runs on."""

    gangs: int
    workers: int
    """Of a gang."""
    devices: float = 1.0
    """GPUs, or CPUs, that a worker holds."""
    startup_s: float = 0.0
    """Until the gangs take their first trials."""


class SimulatedSearch(NamedTuple):
    """One simulated search."""

    elapsed_s: float
    busy_s: float
    """Added up over gangs: training, and what failures cost."""
    lost_s: float
    """Of that, what failures cost."""
    failures: int
    failed_trials: int


class Simulations(NamedTuple):
    """Many simulated searches. Hours; medians, and the ends of the interval that holds 90 % of the searches."""

    hours: float
    low: float
    high: float
    device_hours: float
    """Wall clock times all workers."""
    lost_device_hours: float
    """Of workers that trained what was lost, or waited for a restart. Mean."""
    failures: float
    """Mean."""
    failed_trials: float
    """Mean."""


def simulate_many(
    durations: Sequence[float], trials: int, cluster: Cluster, faults: Faults, seed: int = 0, repeats: int = REPEATS
) -> Simulations:
    """Simulate a search of so many trials many times; their seconds are drawn from the durations."""
    runs = []
    for repeat in range(repeats):
        # The same trials for every cluster and failure rate: rows of a table differ by what they are about.
        drawn = random.Random(f"durations {seed} {repeat}").choices(durations, k=trials)
        runs.append(simulate(drawn, cluster, faults, random.Random(f"failures {seed} {repeat}")))
    hours = sorted(run.elapsed_s / HOUR_S for run in runs)
    tail = round((1 - SHARE) / 2 * (len(hours) - 1))
    median = statistics.median(hours)
    return Simulations(
        median,
        hours[tail],
        hours[-1 - tail],
        median * cluster.gangs * cluster.workers * cluster.devices,
        statistics.fmean(run.lost_s for run in runs) / HOUR_S * cluster.workers * cluster.devices,
        statistics.fmean(run.failures for run in runs),
        statistics.fmean(run.failed_trials for run in runs),
    )


def simulate(durations: Sequence[float], cluster: Cluster, faults: Faults, draws: random.Random) -> SimulatedSearch:
    """Simulate one search over trials of these lengths, in this order."""
    rate = faults.per_worker_day * cluster.workers / DAY_S
    free = [cluster.startup_s] * cluster.gangs
    busy = lost = 0.0
    failures = failed = 0
    for duration in durations:
        begun = heapq.heappop(free)
        run = _train(duration, rate, faults, draws) if rate > 0 else _Trained(duration, 0.0, 0, False)
        heapq.heappush(free, begun + run.took_s)
        busy, lost = busy + run.took_s, lost + run.lost_s
        failures, failed = failures + run.failures, failed + run.failed
    return SimulatedSearch(max(free) if durations else 0.0, busy, lost, failures, failed)


class _Trained(NamedTuple):
    took_s: float
    lost_s: float
    failures: int
    failed: bool


def _train(duration: float, rate: float, faults: Faults, draws: random.Random) -> _Trained:
    took, done, failures = 0.0, 0.0, 0
    while True:
        until = draws.expovariate(rate)
        if until >= duration - done:
            took += duration - done
            return _Trained(took, took - duration, failures, False)
        failures += 1
        took += until + faults.restart_s
        if failures > faults.retries:
            return _Trained(took, took, failures, True)
        reached = done + until
        done = reached - reached % faults.checkpoint_s if faults.checkpoint_s > 0 else reached
