"""Drives a searcher and a scheduler as Tune does, with virtual gangs: no Ray, no clock.

What Tune does with a result, in this order: a trial that says it is done stops, else the scheduler decides; a result
that stops the trial reaches the searcher with the end of the trial, any other by itself. A gang that is free takes a
new trial. Under a scheduler that pauses trials, one trial is always drawn ahead, and the scheduler chooses between it
and those that may go on.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ray.tune.schedulers import TrialScheduler

from harness.gangs.tune_trial import FINISHED, OBJECTIVE, STEP

Curve = Callable[[int], float]
"""What a trial reports after so many steps; not a number where it diverged."""
Train = Callable[[int, Mapping[str, Any]], Curve]
"""The curve of a trial, by its number and params."""


class Searcher(Protocol):
    """What this project's searcher and Ray's own offer."""

    def suggest(self, trial_id: str) -> Any: ...

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None: ...

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None) -> None: ...


class VirtualTrial:
    """A trial: all that schedulers read of Tune's, and what it reported last."""

    is_saving = False

    def __init__(self, number: int, params: Mapping[str, Any], curve: Curve) -> None:
        self.number, self.params, self.curve = number, params, curve
        self.trial_id = f"{number:05d}"
        self.config = {"number": number}
        self.status = "PENDING"
        self.result: dict[str, Any] = {STEP: 0, FINISHED: False}

    @property
    def value(self) -> float:
        """The objective as it was reported last."""
        return float(self.result[OBJECTIVE])


class VirtualTune:
    """As much of Tune's controller as schedulers ask for."""

    def __init__(
        self,
        searcher: Searcher,
        scheduler: Any,
        train: Train,
        *,
        horizon: int,
        report_every: int,
        gangs: int,
        pauses: bool = False,
    ) -> None:
        self._searcher, self._scheduler, self._train = searcher, scheduler, train
        self._horizon, self._every, self._gangs, self._pauses = horizon, report_every, gangs, pauses
        self._running: list[tuple[int, int, VirtualTrial]] = []
        """When the next report of each is due, in steps of a gang."""
        self.trials: list[VirtualTrial] = []

    def play(self) -> Iterator[int]:
        """Search for ever; yield the steps that all trials took so far, after each report."""
        for _ in range(self._gangs):
            self._start(0)
        spent = 0
        while True:
            now, _, trial = heapq.heappop(self._running)
            spent += self._every
            decision = self._take(trial)
            if decision == TrialScheduler.CONTINUE:
                self._await(now, trial)
            else:
                self._start(now)
            yield spent

    def finished(self) -> list[VirtualTrial]:
        """Return the trials that reached the horizon."""
        return [trial for trial in self.trials if trial.result[FINISHED]]

    def ended(self) -> list[VirtualTrial]:
        """Return the trials that are over."""
        return [trial for trial in self.trials if trial.status == "TERMINATED"]

    def get_trials(self) -> list[VirtualTrial]:
        """Return all of them."""
        return self.trials

    def stop_trial(self, trial: VirtualTrial) -> None:
        """End a paused trial, of which the searcher hears no result."""
        self._scheduler.on_trial_remove(self, trial)
        self._searcher.on_trial_complete(trial.trial_id)
        trial.status = "TERMINATED"

    def _start(self, now: int) -> None:
        trial = (self._scheduler.choose_trial_to_run(self) if self._pauses and self.trials else None) or self._draw()
        trial.status = "RUNNING"
        if self._pauses and all(trial.status != "PENDING" for trial in self.trials):
            self._draw()
        self._await(now, trial)

    def _await(self, now: int, trial: VirtualTrial) -> None:
        heapq.heappush(self._running, (now + self._every, trial.number, trial))

    def _draw(self) -> VirtualTrial:
        number = len(self.trials)
        params = self._searcher.suggest(f"{number:05d}")["params"]
        trial = VirtualTrial(number, params, self._train(number, params))
        self.trials.append(trial)
        self._scheduler.on_trial_add(self, trial)
        return trial

    def _take(self, trial: VirtualTrial) -> str:
        """Train a trial up to its next report and do with that what Tune does; return the decision."""
        step = trial.result[STEP] + self._every
        value, finished = trial.curve(step), step >= self._horizon
        trial.result = result = {
            OBJECTIVE: value, STEP: step, FINISHED: finished, "training_iteration": step // self._every,
            "done": finished or math.isnan(value),
        }  # fmt: skip
        decision = TrialScheduler.STOP if result["done"] else self._scheduler.on_trial_result(self, trial, result)
        if decision == TrialScheduler.STOP:
            result["done"] = True
            self._scheduler.on_trial_complete(self, trial, result)
            self._searcher.on_trial_complete(trial.trial_id, result)
            trial.status = "TERMINATED"
        else:
            self._searcher.on_trial_result(trial.trial_id, result)
            trial.status = "PAUSED" if decision == TrialScheduler.PAUSE else "RUNNING"
        return str(decision)
