"""The ledger of a search: what happened to its trials, one line an event, so that another driver can go on.

It is the first book that an event is written to. Optuna's storage and MLflow follow it; where a driver dies between two
books, `harness.search.resume` brings them in line again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from harness.files import end_with_a_whole_line, json_lines
from harness.trials import Trial, TrialState
from trainers.errors import UsageError

LEDGER = "trials.jsonl"


@dataclass
class History:
    """What a ledger tells."""

    trials: dict[int, Trial] = field(default_factory=dict)
    """By number; those that a dead driver left open are INTERRUPTED. Their configs are not in the ledger."""
    elapsed_s: float = 0.0
    """Wall clock of all sessions of the search so far."""
    device_s: float = 0.0
    """The same times the devices that the search held."""

    def unfinished(self) -> list[Trial]:
        """Return the trials that can go on, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if not trial.state.over]


class Ledger:
    """A TrialObserver that appends every event to a file.

    Raises:
        OSError: from any method, where the file cannot be written: a search that cannot be resumed must not go on.
    """

    def __init__(self, path: Path, metric: str) -> None:
        """Open the ledger; what it holds stays.

        Args:
            metric: name of the metric that is the objective.
        """
        self._metric = metric
        path.parent.mkdir(parents=True, exist_ok=True)
        end_with_a_whole_line(path)
        self._file: BinaryIO = path.open("ab", buffering=0)

    def on_start(self, trial: Trial) -> None:
        """Write down what was drawn; once more where a trial goes on."""
        self._append(
            "start",
            trial.number,
            params=dict(trial.params),
            overrides=dict(trial.overrides),
            config_hash=trial.config_hash,
        )

    def on_report(self, trial: Trial) -> None:
        """Write down a report."""
        self._append("report", trial.number, metrics=trial.metrics, value=trial.metrics.get(self._metric))

    def on_end(self, trial: Trial) -> None:
        """Write down how the trial ended, and see that it is on the disk."""
        self._append("end", trial.number, state=str(trial.state), error=trial.error)
        os.fsync(self._file.fileno())

    def spent(self, elapsed_s: float, device_s: float) -> None:
        """Write down what all sessions so far have cost."""
        self._append("spent", None, elapsed_s=elapsed_s, device_s=device_s)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, event: str, number: int | None, **more: object) -> None:
        line = json.dumps({"event": event, "trial": number, **more}, separators=(",", ":")).encode() + b"\n"
        start = self._file.tell()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes of an event could be written")
        except OSError:
            os.ftruncate(self._file.fileno(), start)
            raise


def read_ledger(path: Path, maximise: bool = True) -> History:
    """Return what a ledger tells; an empty history where there is none.

    Args:
        maximise: whether more of the objective is better, which makes the best report.

    Raises:
        UsageError: it is not a ledger.
    """
    history = History()
    try:
        for event in json_lines(path):
            _follow(history, event, maximise)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} must be the ledger of a search, it is not: {error}") from None
    for trial in history.unfinished():
        trial.state = TrialState.INTERRUPTED
    return history


def _follow(history: History, event: Mapping[str, Any], maximise: bool) -> None:
    if event["event"] == "spent":
        history.elapsed_s, history.device_s = event["elapsed_s"], event["device_s"]
        return
    number = event["trial"]
    if event["event"] == "start":
        if number not in history.trials:
            history.trials[number] = Trial(number, event["params"], event["overrides"], event["config_hash"])
        trial = history.trials[number]
        trial.params, trial.overrides, trial.config_hash = event["params"], event["overrides"], event["config_hash"]
        trial.state, trial.error = TrialState.RUNNING, None
    elif event["event"] == "report":
        history.trials[number].take_in(event["metrics"], event["value"], maximise)
    else:
        history.trials[number].state, history.trials[number].error = TrialState(event["state"]), event["error"]
