"""Forecast of how long a search of many trials takes, from the times of an earlier one."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.event_log import LEDGER, read_ledger
from harness.scaling.report import FILES
from harness.scaling.simulate import REPEATS, Cluster, Faults, Forecast, forecast, simulate
from harness.tables import Cell, Column, Table
from harness.tracking.stores import OUTBOX
from trainers.errors import UsageError

COLUMNS = (
    Column("gangs"),
    Column("workers"),
    Column("failures a worker and day", form="g"),
    Column("hours", align="right"),
    Column("90 % of searches", align="right"),
    Column("more than without failures", align="right"),
    Column("device-hours", align="right"),
    Column("of them lost", align="right"),
    Column("failures", form=".1f"),
    Column("trials failed", form=".1f"),
)


class Row(NamedTuple):
    """One line of the table."""

    cluster: Cluster
    per_worker_day: float
    forecast: Forecast
    slowdown: float
    """Hours over those of the first failure rate, less 1."""


@dataclass(frozen=True)
class Outlook:
    """What is to be expected of a search of `trials` trials."""

    search: str
    times: SearchTimes
    trials: int
    faults: Faults
    factor: float
    """Length of a trial with the simulated workers over that in the search."""
    rows: tuple[Row, ...]

    @property
    def replayed_s(self) -> float:
        """What the simulator says of the search itself: its own trials in their own order, without failures."""
        times = self.times
        cluster = Cluster(times.gangs, times.workers, times.startup_s)
        return simulate(times.durations, cluster, Faults(), random.Random(0)).elapsed_s

    @property
    def resampled(self) -> Forecast:
        """The same with trials drawn from its own, as in the table."""
        times = self.times
        cluster = Cluster(times.gangs, times.workers, times.startup_s)
        return forecast(times.durations, len(times.trials), cluster, Faults())


def look_ahead(
    search: str,
    times: SearchTimes,
    trials: int,
    gangs: Sequence[int],
    workers: int,
    faults: Faults,
    rates: Sequence[float],
    factor: float = 1.0,
) -> Outlook:
    """Simulate searches for every number of gangs and every failure rate."""
    durations = [seconds * factor for seconds in times.durations]
    rows = []
    for count in gangs:
        cluster, first = Cluster(count, workers, times.startup_s), 0.0
        for rate in rates:
            found = forecast(durations, trials, cluster, replace(faults, per_worker_day=rate))
            first = first or found.hours
            rows.append(Row(cluster, rate, found, found.hours / first - 1))
    return Outlook(search, times, trials, faults, factor, tuple(rows))


def step_ratio(folder: Path, workers: int, before: int) -> float:
    """Return how much longer a step takes with `workers` than with `before`, from a strong scaling.

    Raises:
        UsageError: there is none, it is not strong, or it knows nothing of one of the numbers.
    """
    path = folder / FILES[0]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        mode = found["asked"]["mode"]
        steps = {row["workers"]: row["step_s"] for row in (*found["predictions"], *found["points"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--scaling must name a measurement of s4 scale, {path} cannot be read: {error}") from None
    lacking = [count for count in (workers, before) if count not in steps]
    if mode != "strong" or lacking:
        why = f"it has no {lacking[0]} workers" if lacking else f"it is {mode}"
        raise UsageError(
            f"--scaling must name a strong scaling with {before} and {workers} workers, got {folder.name}: {why}; "
            f"run s4 scale --mode strong --workers {','.join(map(str, sorted({1, before, workers})))}"
        )
    return float(steps[workers] / steps[before])


def lines(found: Outlook) -> list[str]:
    """Return where the forecast comes from, and how well the simulator repeats what happened."""
    times, faults, again = found.times, found.faults, found.resampled
    counted = ", ".join(f"{count} {state}" for state, count in times.counts.items())
    mean = sum(times.durations) / len(times.trials)
    ends = f"{min(times.durations):.1f} to {max(times.durations):.1f} s, mean {mean:.1f}"
    said = [
        f"SIMULATED, not measured: {found.trials} trials as long as those of {found.search} ({counted}; {ends}), "
        f"{REPEATS} searches a row",
        f"a failure costs the work since the last checkpoint (every {faults.checkpoint_s:g} s) and "
        f"{faults.restart_s:g} s; a trial fails after {faults.retries} retries",
        f"check: {found.search} itself took {times.elapsed_s:.1f} s with {times.gangs} gangs; the simulator says "
        f"{found.replayed_s:.1f} s for its trials in their order ({found.replayed_s / times.elapsed_s:.3f}), "
        f"{3600 * again.hours:.1f} s [{3600 * again.low:.1f}, {3600 * again.high:.1f}] for as many drawn from them",
    ]
    if found.factor != 1:
        said.append(f"trials are taken to be {found.factor:.3f} times as long as in the search, by --scaling")
    return said


def to_table(found: Outlook) -> Table:
    """Return the table, a row for each number of gangs and each failure rate."""
    rows: list[list[Cell]] = []
    for cluster, per_worker_day, expected, slowdown in found.rows:
        hours, low, high, device_hours, lost = map(_digits, expected[:5])
        rows.append([
            cluster.gangs, cluster.workers, per_worker_day, hours, f"{low} to {high}", f"{100 * slowdown:+.1f} %",
            device_hours, lost, expected.failures, expected.failed_trials,
        ])  # fmt: skip
    return Table("forecast", "", COLUMNS, rows)


def to_json(found: Outlook) -> dict[str, Any]:
    """Return everything as JSON-able values."""
    times = found.times
    return {
        "kind": "simulation",
        "search": found.search,
        "trials": found.trials,
        "durations_s": times.durations,
        "counts": dict(times.counts),
        "faults": {name: value for name, value in asdict(found.faults).items() if name != "per_worker_day"},
        "factor": found.factor,
        "rows": [
            {
                "gangs": row.cluster.gangs,
                "workers_per_gang": row.cluster.workers,
                "failures_per_worker_day": row.per_worker_day,
                **row.forecast._asdict(),
                "slowdown": row.slowdown,
                "prediction": True,
            }
            for row in found.rows
        ],
        "check": {
            "gangs": times.gangs,
            "elapsed_s": times.elapsed_s,
            "replayed_s": found.replayed_s,
            "ratio": found.replayed_s / times.elapsed_s,
            "resampled_hours": found.resampled._asdict(),
        },
        "lines": lines(found),
    }


def _digits(hours: float) -> str:
    return f"{hours:.3g}" if hours < 100 else f"{hours:.0f}"


COUNTED = ("COMPLETE", "PRUNED")


class TrialTime(NamedTuple):
    """How long one trial kept a gang."""

    number: int
    begun_s: float
    """From the first trial's start."""
    seconds: float
    """Without what it waited for its gang's processes to start."""
    state: str


@dataclass(frozen=True)
class SearchTimes:
    """The trials of a search that are COMPLETE or PRUNED, in the order of their starts."""

    trials: tuple[TrialTime, ...]
    gangs: int
    """Most trials that ran at once."""
    workers: int
    """Of a gang; 1 where the search does not say."""
    startup_s: float
    """What the first trials waited for their gangs."""
    elapsed_s: float
    """From the first start to the last end, as it was."""

    @property
    def durations(self) -> list[float]:
        """Seconds, in order."""
        return [trial.seconds for trial in self.trials]

    @property
    def counts(self) -> Mapping[str, int]:
        """Trials by state."""
        states = [trial.state for trial in self.trials]
        return {state: states.count(state) for state in COUNTED if state in states}


def read_times(folder: Path) -> SearchTimes:
    """Return the times of a search.

    Raises:
        UsageError: the folder holds no search, a trial of it is open, or it was interrupted in between.
    """
    ledger, outbox = folder / LEDGER, folder / OUTBOX
    if not ledger.exists() or not outbox.exists():
        raise UsageError(
            f"--simulate must name a search with {LEDGER} and {OUTBOX} in its folder, {folder} lacks them: run s4 tune"
        )
    states = {number: str(trial.state) for number, trial in read_ledger(ledger).trials.items()}
    if "INTERRUPTED" in states.values():
        raise UsageError(
            f"--simulate must name a search whose trials are over, {folder.name} has some that are not: wait, or go on "
            f"with s4 tune --resume --name {folder.name}"
        )
    return times_of(_operations(outbox), states, _workers(folder))


def times_of(operations: Iterable[Mapping[str, Any]], states: Mapping[int, str], workers: int = 1) -> SearchTimes:
    """Return the times that the operations of an outbox tell.

    Raises:
        UsageError: a trial began twice (the search was interrupted, its wall clock is not one piece), or none ended.
    """
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    starts: dict[int, float] = {}
    for operation in operations:
        number, stamp = operation.get("trial"), operation["time"] / 1000
        if number is None:
            continue
        if operation["op"] == "start" and number in begun:
            raise UsageError(
                f"--simulate must name a search that ran in one piece, its trial {number} began twice: take another"
            )
        if operation["op"] == "start":
            begun[number] = stamp
        elif operation["op"] == "end":
            ended[number] = stamp
        elif "overhead/start_s" in operation.get("metrics", {}):
            starts.setdefault(number, operation["metrics"]["overhead/start_s"])
    counted = sorted(
        (number for number in ended if states.get(number) in COUNTED), key=lambda number: (begun[number], number)
    )
    if not counted:
        raise UsageError("--simulate must name a search with trials that are COMPLETE or PRUNED, it has none")
    gangs = _most_at_once([(begun[number], ended[number]) for number in counted])
    waited = _waits(counted[:gangs], counted[gangs:], starts)
    first = begun[counted[0]]
    trials = tuple(
        TrialTime(
            number, begun[number] - first, ended[number] - begun[number] - waited.get(number, 0.0), states[number]
        )
        for number in counted
    )
    elapsed = max(ended[number] for number in counted) - first
    return SearchTimes(trials, gangs, workers, max(waited.values(), default=0.0), elapsed)


def _waits(first: list[int], others: list[int], starts: Mapping[int, float]) -> dict[int, float]:
    """Return what the first trial of each gang waited for processes: its start, less what a start takes later on."""
    usual = statistics.median([starts[number] for number in others if number in starts] or [0.0])
    return {number: max(0.0, starts[number] - usual) for number in first if number in starts}


def _most_at_once(spans: list[tuple[float, float]]) -> int:
    # At the same moment, an end comes before a start: a gang hands one trial back and takes the next.
    events = sorted([(begun, 1) for begun, _ in spans] + [(ended, -1) for _, ended in spans])
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


def _operations(outbox: Path) -> list[Mapping[str, Any]]:
    try:
        return [json.loads(line) for line in outbox.read_bytes().splitlines() if line.strip()]
    except ValueError as error:
        raise UsageError(f"{outbox} must be the outbox of a search, it is not: {error}") from None


def _workers(folder: Path) -> int:
    from harness.search.manifest import SEARCH, read_manifest

    return int(read_manifest(folder).plan.get("workers_per_gang") or 1) if (folder / SEARCH).exists() else 1
