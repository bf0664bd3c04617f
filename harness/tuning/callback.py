"""Tune's callback: keeps `Trial` records, tells observers, frees gangs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import tune

from harness.gangs.tune_trial import ERROR, FINISHED, METRICS, OBJECTIVE, STEP
from harness.trials import Trial, TrialObserver, TrialState
from harness.tuning.searcher import Resolve, outcome
from trainers.errors import UsageError

TUNE_RUNNING = "RUNNING"
"""Status of one of Tune's trials."""


@dataclass(eq=False, repr=False)
class TuneCallback(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Maps Tune's trials to ours. All calls come from the driver's main thread, in order."""

    dispatcher: Any
    resolve: Resolve
    observers: Sequence[TrialObserver]
    """Told in this order; the first is the ledger."""
    each_turn: Callable[[], None]
    """Called at every turn of Tune's loop, at least ten times a second."""
    earlier: Mapping[int, Trial] = field(default_factory=dict)
    """Trials of earlier sessions, by number."""
    maximise: bool = True
    changed: Callable[[str, Mapping[str, Any]], None] = lambda trial_id, params: None
    """Told of params that were changed while a trial ran."""
    sick: Callable[[str], str | None] = lambda trial_id: None
    """Why one of Tune's trials was stopped for its health; none where it was not."""
    ending: Callable[[], str | None] = lambda: None
    """Why the session ends; none while it does not. A proxy that dies then fails no trial."""
    idle: bool = field(default=False, init=False)
    """Whether Tune has no trial at work."""
    _trials: dict[str, Trial] = field(default_factory=dict, init=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of the pickle of itself that Tune writes and nothing reads."""
        return {}

    @property
    def trials(self) -> list[Trial]:
        """Every trial that was started, in this session or an earlier one, by number."""
        everyone = {**self.earlier, **{trial.number: trial for trial in self._trials.values()}}
        return [trial for _, trial in sorted(everyone.items())]

    @property
    def running(self) -> list[Trial]:
        """Trials that are open now."""
        return [trial for trial in self._trials.values() if trial.state is TrialState.RUNNING]

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look after what is not a trial."""
        self.idle = all(trial.status != TUNE_RUNNING for trial in trials)
        self.each_turn()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the record."""
        self._open(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record a report; a failed trial has none.

        A last report is made once more where an earlier driver died before the trial's end was written down.
        """
        ours = self._trials[trial.trial_id]
        if result.get(ERROR) or (result[FINISHED] and ours.step == result[STEP]):
            return
        if dict(trial.config["params"]) != dict(ours.params):
            self._change(ours, trial)
        ours.take_in(result[METRICS], result[OBJECTIVE], self.maximise)
        for observer in self.observers:
            observer.on_report(ours)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the record of a trial that finished, was stopped, or said why it failed or went no further."""
        if trial.trial_id not in self._trials:
            return  # it never started
        result = trial.last_result
        state, error = outcome(result), result.get(ERROR)
        if state is TrialState.PRUNED:
            error = self.sick(trial.trial_id)
        self._end(trial.trial_id, state, error)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the record of a trial whose proxy raised or died."""
        self._open(trial)
        reason = self.ending()
        if reason is not None:
            return self._end(trial.trial_id, TrialState.INTERRUPTED, reason)
        self._end(trial.trial_id, TrialState.FAIL, str(trial.get_pickled_error() or "the trial's proxy was lost"))

    def _change(self, ours: Trial, trial: Any) -> None:
        """Take note that the scheduler let a trial go on with another's state and other params."""
        ours.params, ours.overrides = dict(trial.config["params"]), dict(trial.config["job"].overrides)
        ours.config, ours.config_hash = self.resolve(ours.overrides)
        self.changed(trial.trial_id, ours.params)
        for observer in self.observers:
            observer.on_start(ours)

    def interrupt_unfinished(self, reason: str) -> None:
        """Close the records that Tune left open."""
        for key, trial in self._trials.items():
            if trial.state is TrialState.RUNNING:
                self._end(key, TrialState.INTERRUPTED, reason)

    def _open(self, trial: Any) -> None:
        if trial.trial_id in self._trials:
            return
        job = trial.config["job"]
        number, params = trial.config["number"], trial.config["params"]
        ours = self.earlier.get(number) or Trial(number=number, params=params, overrides=job.overrides)
        ours.state, ours.error = TrialState.RUNNING, None
        with contextlib.suppress(UsageError):  # the gang meets it too and fails the trial with its words
            ours.config, ours.config_hash = self.resolve(job.overrides)
        self._trials[trial.trial_id] = ours
        for observer in self.observers:
            observer.on_start(ours)

    def _end(self, key: str, state: TrialState, error: str | None) -> None:
        self.dispatcher.drop.remote(key)  # frees the gang, whatever ended the trial
        trial = self._trials[key]
        trial.state, trial.error = state, error
        for observer in self.observers:
            observer.on_end(trial)
        if state.over:
            trial.config = {}  # of thousands of trials they would fill the driver's memory
