"""An Optuna searcher that tells Optuna the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState as OptunaState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from harness.gangs.messages import Job
from harness.gangs.trial import ERROR, FINISHED, INTERRUPTED, OBJECTIVE, STEP
from harness.search.keeper import checkpoint_folder
from harness.search.space import SearchSpace
from harness.trials import Trial, TrialState, Value
from trainers.errors import UsageError

Resolve = Callable[[Mapping[str, Value]], tuple[Mapping[str, Any], str]]


class TruthfulOptunaSearch(OptunaSearch):  # type: ignore[misc]  # ray is untyped
    """OptunaSearch that tells how trials really ended.

    Ray's own tells a trial that the scheduler stopped as COMPLETE with its low-budget value, and leaves a trial whose
    objective is not a number RUNNING for ever. Here: finished is COMPLETE, stopped is PRUNED with its intermediate
    values at their optimizer steps, failed is FAIL, and what was interrupted is WAITING: the next session draws it
    again before anything new, with the number and the parameters it had.
    """

    def __init__(
        self,
        space: SearchSpace,
        resolve: Resolve,
        storage: optuna.storages.BaseStorage,
        study_name: str,
        sampler: optuna.samplers.BaseSampler,
        checkpoints: Path,
        earlier: Mapping[int, Trial] | None = None,
    ) -> None:
        """Open or continue the study.

        Args:
            resolve: `Experiment.resolve`; gives each trial the hash of the config that is meant.
            checkpoints: folder that gets a folder for each trial.
            earlier: trials of earlier sessions, by number; those of the study are in line with them already.
        """
        self._described = space
        self._resolve = resolve
        self._checkpoints = checkpoints
        self._earlier = earlier or {}
        self._finished = False
        self._last: dict[str, Mapping[str, Any]] = {}
        super().__init__(
            space=space.suggest,
            metric=OBJECTIVE,
            mode="max",
            sampler=sampler,
            storage=storage,
            study_name=study_name,
        )
        for zombie in self.study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            self._put_back(zombie)
        if not self.study.trials:
            self.study.enqueue_trial(dict(space.baseline_params))

    @property
    def study(self) -> optuna.Study:
        """The Optuna study."""
        found: optuna.Study = self._ot_study
        return found

    def finish(self) -> None:
        """Draw no more trials."""
        self._finished = True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Draw a trial: the config of a `GangTrial`, plus `number` and `params` for the follower."""
        if self._finished:
            return str(Searcher.FINISHED)
        drawn = self._ot_trials[trial_id] = self.study.ask()
        params = self._described.suggest(drawn)
        overrides = self._described.overrides(params)
        try:
            _, config_hash = self._resolve(overrides)
        except UsageError:  # the gang meets the same error and fails the trial with it
            config_hash = ""
        folder = checkpoint_folder(self._checkpoints, drawn.number)
        known = self._earlier.get(drawn.number)
        last_step = known.step if known is not None and known.metrics else -1
        job = Job(trial_id, overrides, str(folder), config_hash, last_step=last_step)
        return {"number": drawn.number, "params": params, "job": job}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep an intermediate value."""
        self._last[trial_id] = result
        self._ot_trials[trial_id].report(result[OBJECTIVE], result[STEP])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell how the trial ended; a trial that is stopped while it pauses comes without its last result."""
        trial = self._ot_trials.pop(trial_id)
        last = self._last.pop(trial_id, None)
        state = outcome(result or last, error)
        if state is TrialState.INTERRUPTED:
            self._put_back(trial)
        elif state is TrialState.FAIL:
            self.study.tell(trial, state=OptunaState.FAIL)
        else:
            told = result or last
            assert told is not None  # noqa: S101  # narrows the type: without a result there is no such outcome
            trial.report(told[OBJECTIVE], told[STEP])  # the scheduler's last word hides it from `on_trial_result`
            if state is TrialState.PRUNED:
                self.study.tell(trial, state=OptunaState.PRUNED)
            else:
                self.study.tell(trial, told[OBJECTIVE])

    def interrupt_unfinished(self) -> None:
        """Put back every trial that is still RUNNING: the session was cut short."""
        for trial in self._ot_trials.values():
            self._put_back(trial)
        self._ot_trials.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of the pickle of itself that Tune writes and nothing reads."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study's storage is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study's storage is the state."""

    def _put_back(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
        """Let a later `ask` draw this trial again; a RUNNING one would repel TPE's samples until then."""
        put_back(self.study, trial)


def put_back(study: optuna.Study, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
    """Make a RUNNING trial WAITING, as an enqueued one is: `ask` returns it with what it has."""
    study._storage.set_trial_state_values(trial._trial_id, OptunaState.WAITING)


def outcome(result: Mapping[str, Any] | None, error: bool = False) -> TrialState:
    """Return how a trial ended, from its last result; the one place where this is decided."""
    if error:
        return TrialState.FAIL
    if not result or result.get(INTERRUPTED):
        return TrialState.INTERRUPTED
    if result.get(ERROR) or not math.isfinite(result.get(OBJECTIVE, math.nan)):
        return TrialState.FAIL
    return TrialState.COMPLETE if result[FINISHED] else TrialState.PRUNED


def journal(path: Path) -> optuna.storages.JournalStorage:
    """Open or make a study storage that is one file."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler of this name, `tpe` or `random`."""
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    return samplers[name](seed=seed)
