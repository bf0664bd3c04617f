"""How long many trials will take: forecasts over gangs and failure rates, from a search that ran."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.scaling.durations import SearchTimes
from harness.scaling.report import FILES
from harness.scaling.simulate import REPEATS, Cluster, Faults, Forecast, forecast, simulate
from harness.scaling.tables import numbers_table
from trainers.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "gangs", "workers", "failures a worker and day", "hours", "90 % of searches", "more than without failures",
    "device-hours", "of them lost", "failures", "trials failed",
)  # fmt: skip


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


def cells(found: Outlook) -> list[list[str]]:
    """Return the table as text."""
    return [
        [
            str(row.cluster.gangs),
            str(row.cluster.workers),
            f"{row.per_worker_day:g}",
            _digits(row.forecast.hours),
            f"{_digits(row.forecast.low)} to {_digits(row.forecast.high)}",
            f"{100 * row.slowdown:+.1f} %",
            _digits(row.forecast.device_hours),
            _digits(row.forecast.lost_device_hours),
            f"{row.forecast.failures:.1f}",
            f"{row.forecast.failed_trials:.1f}",
        ]
        for row in found.rows
    ]


def to_table(found: Outlook) -> Table:
    """Return the table for a terminal."""
    return numbers_table(COLUMNS, cells(found))


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
