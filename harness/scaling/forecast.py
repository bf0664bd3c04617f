"""Forecast of how long a search of many trials takes, from the times of an earlier one."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from harness.console import Console
from harness.ledger import LEDGER, json_lines, read_ledger
from harness.run_folder import kind_of, read_run
from harness.scaling.report import FILES
from harness.scaling.simulate import REPEATS, Cluster, Faults, Simulations, simulate, simulate_many
from harness.tables import Cell, Column, Table
from harness.trials import AUTO
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
COUNTED = ("COMPLETE", "PRUNED")
"""States of trials whose times count."""


class TrialEvent(NamedTuple):
    """A start, a report or an end of a trial."""

    kind: str
    """`start`, `report` or `end`."""
    trial: int
    unix_s: float
    start_s: float | None = None
    """Seconds that a report says the trial waited before its first step; none where it does not."""


class TrialTime(NamedTuple):
    """How long one trial kept a gang."""

    number: int
    seconds: float
    """Without what it waited for its gang's processes to start."""
    state: str


@dataclass(frozen=True)
class SearchTimes:
    """The trials of a search that are COMPLETE or PRUNED, in the order of their starts."""

    search: str
    trials: tuple[TrialTime, ...]
    gangs: int
    """Most trials that ran at once."""
    workers: int
    """Of a gang; 1 where the search does not say."""
    startup_s: float
    """What the first trials waited for their gangs."""
    elapsed_s: float
    """From the first start to the last end, as it was."""
    devices: float = 1.0
    """GPUs, or CPUs, that a worker held."""

    @property
    def durations(self) -> list[float]:
        """Seconds, in order."""
        return [trial.seconds for trial in self.trials]

    @property
    def counts(self) -> Mapping[str, int]:
        """Trials by state."""
        states = [trial.state for trial in self.trials]
        return {state: states.count(state) for state in COUNTED if state in states}

    @property
    def cluster(self) -> Cluster:
        """What the search ran on."""
        return Cluster(self.gangs, self.workers, self.devices, self.startup_s)


class Row(NamedTuple):
    """One line of the table."""

    cluster: Cluster
    per_worker_day: float
    simulations: Simulations
    slowdown: float
    """Hours over those of the first failure rate, less 1."""


@dataclass(frozen=True)
class Forecast:
    """What is to be expected of a search of `trials` trials."""

    times: SearchTimes
    trials: int
    faults: Faults
    factor: float
    """Length of a trial with the simulated workers over that in the search."""
    rows: tuple[Row, ...]

    @property
    def replayed_s(self) -> float:
        """Simulated seconds of the search itself: its own trials in their own order, without failures."""
        return simulate(self.times.durations, self.times.cluster, Faults(), random.Random(0)).elapsed_s

    @property
    def resampled(self) -> Simulations:
        """The same with trials drawn from its own, as in the table."""
        return simulate_many(self.times.durations, len(self.times.trials), self.times.cluster, Faults())


def forecast_search(
    times: SearchTimes,
    trials: int,
    gangs: Sequence[int],
    rates: Sequence[float],
    faults: Faults,
    workers: int | None = None,
    scaling: Path | None = None,
) -> Forecast:
    """Simulate searches of trials like those of an earlier one, for every number of gangs and every failure rate.

    `rates` are failures of one worker a day; the folder of a strong `scaling` tells the speed of other `workers`.

    Raises:
        UsageError: nothing tells the speed of that many workers.
    """
    workers = workers or times.workers
    if workers != times.workers and scaling is None:
        raise UsageError(
            f"--workers must be that of the search, {times.workers}, where no --scaling tells how much faster "
            f"others are, got {workers}: run s4 scale --mode strong and name it"
        )
    factor = 1.0 if scaling is None else step_ratio(scaling, workers, times.workers)
    durations = [seconds * factor for seconds in times.durations]
    rows = []
    for count in gangs:
        cluster, first = Cluster(count, workers, times.devices, times.startup_s), 0.0
        for rate in rates:
            simulations = simulate_many(durations, trials, cluster, replace(faults, per_worker_day=rate))
            first = first or simulations.hours
            rows.append(Row(cluster, rate, simulations, simulations.hours / first - 1))
    return Forecast(times, trials, faults, factor, tuple(rows))


def step_ratio(folder: Path, workers: int, before: int) -> float:
    """Return how much longer a step takes with `workers` than with `before`, from a strong scaling.

    Raises:
        UsageError: there is none, it is not strong, or it knows nothing of one of the numbers.
    """
    path = folder / FILES[0]
    try:
        scaling = json.loads(path.read_text(encoding="utf-8"))
        mode = scaling["asked"]["mode"]
        steps = {row["workers"]: row["step_s"] for row in (*scaling["predictions"], *scaling["points"])}
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


def read_times(folder: Path) -> SearchTimes:
    """Return the times of a search.

    Raises:
        UsageError: the folder holds no search, a trial of it is open, or it was interrupted in between.
    """
    ledger = folder / LEDGER
    if not ledger.exists():
        raise UsageError(f"--simulate must name a search with a {LEDGER} in its folder, {folder} lacks it: run s4 tune")
    history = read_ledger(ledger)
    states = {number: str(trial.state) for number, trial in history.trials.items()}
    if "INTERRUPTED" in states.values():
        raise UsageError(
            f"--simulate must name a search whose trials are over, {folder.name} has some that are not: wait, or go on "
            f"with s4 tune --resume --name {folder.name}"
        )
    options = read_run(folder).request.get("options", {}) if kind_of(folder) else {}
    times = search_times(ledger_events(ledger), states, int(options.get("workers_per_gang") or 1), folder.name)
    sharing = str(options.get("gangs_per_gpu", 1))
    # What `auto` came to is in the hours of the devices.
    held = history.device_s / (times.gangs * times.workers * history.elapsed_s) if sharing == AUTO else 1 / int(sharing)
    return replace(times, devices=held)


def ledger_events(ledger: Path) -> Iterator[TrialEvent]:
    """Yield the events of trials in a ledger, in order.

    Raises:
        UsageError: version 0.1 wrote it, without times.
    """
    for event in json_lines(ledger):
        if event["trial"] is not None:
            if "time" not in event:
                why = f"{ledger.parent.name} is of version 0.1: search again"
                raise UsageError(f"--simulate must name a search whose ledger holds times, {why}")
            start_s = event.get("metrics", {}).get("overhead/start_s")
            yield TrialEvent(event["event"], event["trial"], event["time"], start_s)


def search_times(
    events: Iterable[TrialEvent], states: Mapping[int, str], workers: int = 1, search: str = ""
) -> SearchTimes:
    """Return the times of a search from the events of its trials, in order.

    Raises:
        UsageError: a trial began twice (the search was interrupted, its wall clock is not one piece), or none ended.
    """
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    starts: dict[int, float] = {}
    for event in events:
        if event.kind == "start" and event.trial in begun:
            why = f"its trial {event.trial} began twice: take another"
            raise UsageError(f"--simulate must name a search that ran in one piece, {why}")
        if event.kind == "start":
            begun[event.trial] = event.unix_s
        elif event.kind == "end":
            ended[event.trial] = event.unix_s
        elif event.start_s is not None:
            starts.setdefault(event.trial, event.start_s)
    over = (number for number in ended if states.get(number) in COUNTED)
    counted = sorted(over, key=lambda number: (begun[number], number))
    if not counted:
        raise UsageError("--simulate must name a search with trials that are COMPLETE or PRUNED, it has none")
    # At the same moment, an end comes before a start: a gang hands one trial back and takes the next.
    changes = sorted([(begun[number], 1) for number in counted] + [(ended[number], -1) for number in counted])
    gangs = max(accumulate(change for _, change in changes))
    # The first trial of each gang waited for processes: its start, less what a start takes later on.
    usual = statistics.median([starts[number] for number in counted[gangs:] if number in starts] or [0.0])
    waits = {number: max(0.0, starts[number] - usual) for number in counted[:gangs] if number in starts}
    trials = tuple(
        TrialTime(number, ended[number] - begun[number] - waits.get(number, 0.0), states[number]) for number in counted
    )
    elapsed = max(ended[number] for number in counted) - begun[counted[0]]
    return SearchTimes(search, trials, gangs, workers, max(waits.values(), default=0.0), elapsed)


def lines(forecast: Forecast) -> list[str]:
    """Return where the forecast comes from, and how well the simulator repeats what happened."""
    times, faults, resampled = forecast.times, forecast.faults, forecast.resampled
    counted = ", ".join(f"{count} {state}" for state, count in times.counts.items())
    durations = times.durations
    ends = f"{min(durations):.1f} to {max(durations):.1f} s, mean {sum(durations) / len(durations):.1f}"
    summary = [
        f"SIMULATED, not measured: {forecast.trials} trials as long as those of {times.search} ({counted}; {ends}), "
        f"{REPEATS} searches a row",
        f"a failure costs the work since the last checkpoint (every {faults.checkpoint_s:g} s) and "
        f"{faults.restart_s:g} s; a trial fails after {faults.retries} retries",
        f"check: {times.search} itself took {times.elapsed_s:.1f} s with {times.gangs} gangs; the simulator says "
        f"{forecast.replayed_s:.1f} s for its trials in their order ({forecast.replayed_s / times.elapsed_s:.3f}), "
        f"{3600 * resampled.hours:.1f} s [{3600 * resampled.low:.1f}, {3600 * resampled.high:.1f}] for as many drawn "
        "from them",
    ]
    if forecast.factor != 1:
        summary.append(f"trials are taken to be {forecast.factor:.3f} times as long as in the search, by --scaling")
    return summary


def to_table(forecast: Forecast) -> Table:
    """Return the table, a row for each number of gangs and each failure rate."""
    rows: list[list[Cell]] = []
    for cluster, per_worker_day, simulations, slowdown in forecast.rows:
        digits = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in simulations[:5]]
        hours, low, high, device_hours, lost = digits
        rows.append([
            cluster.gangs, cluster.workers, per_worker_day, hours, f"{low} to {high}", f"{100 * slowdown:+.1f} %",
            device_hours, lost, simulations.failures, simulations.failed_trials,
        ])  # fmt: skip
    return Table("forecast", "", COLUMNS, rows)


def to_json(forecast: Forecast) -> dict[str, Any]:
    """Return everything as JSON-able values."""
    times, faults = forecast.times, asdict(forecast.faults)
    del faults["per_worker_day"]
    return {
        "kind": "simulation",
        "search": times.search,
        "trials": forecast.trials,
        "durations_s": times.durations,
        "counts": dict(times.counts),
        "faults": faults,
        "factor": forecast.factor,
        "rows": [
            {
                "gangs": row.cluster.gangs,
                "workers_per_gang": row.cluster.workers,
                "failures_per_worker_day": row.per_worker_day,
                **row.simulations._asdict(),
                "slowdown": row.slowdown,
                "prediction": True,
            }
            for row in forecast.rows
        ],
        "check": {
            "gangs": times.gangs,
            "elapsed_s": times.elapsed_s,
            "replayed_s": forecast.replayed_s,
            "ratio": forecast.replayed_s / times.elapsed_s,
            "resampled_hours": forecast.resampled._asdict(),
        },
        "lines": lines(forecast),
    }


def show(forecast: Forecast, console: Console) -> None:
    """Write the table, the lines and the JSON object."""
    console.table(to_table(forecast))
    for line in lines(forecast):
        console.say(line)
    console.result(to_json(forecast))
