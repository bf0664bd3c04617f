"""How long the trials of a search took, from what it left in its folder.

Times are those of the outbox, in which every start, report and end has one; states and the wall clock of all
sessions are those of the ledger.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.search.ledger import LEDGER, read_ledger
from harness.tracking.stores import OUTBOX
from trainers.errors import UsageError

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
