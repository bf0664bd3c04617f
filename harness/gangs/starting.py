"""What the ledger is told of a session's start: the driver's stamps and those of its gangs."""

from __future__ import annotations

from typing import Any

from harness.gangs.client import call_with_retry
from harness.ledger import Ledger
from harness.start import Start
from harness.trials import Trial


class Starting:
    """A `TrialObserver` that writes the start down at the first report, and once more as further gangs report.

    It asks the Dispatcher at the first report of a trial, until each gang has had one.
    """

    def __init__(self, start: Start, dispatcher: Any, ledger: Ledger, gangs: int) -> None:
        self._start, self._dispatcher, self._ledger, self._gangs = start, dispatcher, ledger, gangs
        self._reported: set[int] = set()

    def on_start(self, trial: Trial) -> None:
        """Nothing is known yet."""

    def on_report(self, trial: Trial) -> None:
        """Write down what is known."""
        if trial.number in self._reported or len(self._start.by_report) >= self._gangs:
            return
        self._reported.add(trial.number)
        self._start.mark("told")
        self._start.take_in(call_with_retry(self._dispatcher.started))
        self._ledger.started(self._start)

    def on_end(self, trial: Trial) -> None:
        """Leave it: what a start was does not change."""
