"""An Optuna searcher that tells Optuna the truth."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from harness.connection import check_own_node
from harness.gangs.messages import Job
from harness.gangs.tune_trial import ERROR, FINISHED, INTERRUPTED, METRICS, OBJECTIVE, STEP
from harness.run_folder import checkpoint_folder
from harness.trials import SearchSpace, Trial, TrialState, Value
from harness.tuning.database import said_by
from harness.tuning.joining import new_trial, open_trials
from harness.tuning.marks import num_imported, own_trials
from harness.tuning.objectives import Constraint, Objective, values_of
from harness.tuning.population import Config
from harness.tuning.samplers import CellSampler
from harness.tuning.shared import Shared
from harness.tuning.study import enqueue_starts, requeue, set_metric_names
from trainers.errors import UsageError

Answer = TypeVar("Answer")
Resolve = Callable[[Mapping[str, Value]], tuple[Mapping[str, Any], str]]
LAST_PARAMS = "s4.last_params"
"""User attribute of a trial whose params were changed while it ran: what they were at its end."""


class TruthfulOptunaSearch(OptunaSearch):  # type: ignore[misc]  # ray is untyped
    """OptunaSearch that tells how trials really ended.

    Ray's own tells a trial that the scheduler stopped as COMPLETE with its low-budget value, and leaves a trial whose
    objective is not a number RUNNING for ever. Here: finished is COMPLETE, stopped is PRUNED with its intermediate
    values at their optimizer steps, failed is FAIL, and what was interrupted is WAITING: the next session draws it
    again before anything new, with the number and the parameters it had.

    Optuna takes no intermediate values for several objectives: a stopped trial is then PRUNED without them.

    In a shared study, which `join` made, what was interrupted stays RUNNING, and is gone on with first all the same.
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
        objectives: Sequence[Objective] = (Objective("dev/miou", "max"),),
        constraints: Sequence[Constraint] = (),
        warm: Sequence[FrozenTrial] = (),
        shared: Shared | None = None,
        limit: int | None = None,
    ) -> None:
        """Open or continue the study.

        Args:
            resolve: `Experiment.resolve`; gives each trial the hash of the config that is meant.
            checkpoints: folder that gets a folder for each trial.
            earlier: trials of earlier sessions, by number; those of the study are in line with them already.
            warm: trials of another search to learn from; they are none of this one's.
            shared: this driver's part in a shared study; none: the study is its own.
            limit: trials of all drivers beyond which a shared study gets no more.
        """
        self._described = space
        self._resolve = resolve
        self._checkpoints = checkpoints
        self._earlier = earlier or {}
        self._objectives = tuple(objectives)
        self._constraints = tuple(constraints)
        self._shared, self._limit = shared, math.inf if limit is None else limit
        self.away: str | None = None
        """Why the database of a shared study is given up."""
        self._finished = False
        self._last: dict[str, Mapping[str, Any]] = {}
        self._ids: dict[int, str] = {}
        several = len(self._objectives) > 1
        super().__init__(
            space=space.suggest,
            metric=[objective.metric for objective in self._objectives] if several else OBJECTIVE,
            mode=[objective.mode for objective in self._objectives] if several else self._objectives[0].mode,
            sampler=sampler,
            storage=storage,
            study_name=study_name,
        )
        self._open: list[optuna.Trial | FrozenTrial] = []
        if shared is None:
            self._begin(warm)
        else:
            self._open += open_trials(self.study, shared)
        self._first = num_imported(self.study)

    def _begin(self, warm: Sequence[FrozenTrial]) -> None:
        """Put back what an earlier session left RUNNING; what a new study begins with is enqueued."""
        for zombie in self.study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            requeue(self.study, zombie)
        if not self.study.get_trials(deepcopy=False):
            set_metric_names(self.study, self._objectives)
            self.study.add_trials(warm)
        if not own_trials(self.study):
            enqueue_starts(self.study, self._described)

    @property
    def space(self) -> Any:
        """The search space."""
        return self._described

    @property
    def study(self) -> optuna.Study:
        """The Optuna study."""
        study: optuna.Study = self._ot_study
        return study

    def finish(self) -> None:
        """Draw no more trials."""
        self._finished = True

    def suggest(self, trial_id: str) -> Config | str:
        """Draw a trial: the config of a `GangTrial`, plus `number` and `params` for the follower."""
        return self.ask(lambda: self._next(trial_id)) or str(Searcher.FINISHED)

    def ask(self, question: Callable[[], Answer]) -> Answer | None:
        """Return what a question to the study brings; none once its database was away for so long that it is given up.

        What is not told then the ledger has: it is told when the search goes on.
        """
        if self.away is None:
            try:
                return question()
            except optuna.exceptions.StorageInternalError as error:
                self.away = f"the database of the study is away ({said_by(error)})"
        return None

    def _next(self, trial_id: str) -> Config | None:
        """Return the config of the next trial; none where there is none."""
        drawn = None if self._finished or self._exhausted() else self._draw()
        if drawn is None:
            return None
        self._ot_trials[trial_id] = drawn
        number = drawn.number - self._first
        self._ids[number] = trial_id
        params = self._described.suggest(drawn)
        known = self._earlier.get(number)
        if known is None:
            return self._config(number, params)
        config = self._config(number, known.params)
        return {**config, "job": replace(config["job"], last_step=known.step if known.metrics else -1)}

    def _draw(self) -> optuna.Trial | None:
        """Return the next trial; none where another driver of a shared study drew the last one meanwhile."""
        if self._shared is None:
            return self.study.ask()
        self.study._thread_local.cached_all_trials = None  # as `ask` does
        if self._open:
            return optuna.Trial(self.study, self._open.pop(0)._trial_id)
        drawn = optuna.Trial(self.study, new_trial(self.study, self._shared))
        before, sampler = sum(other.number < drawn.number for other in own_trials(self.study)), self.study.sampler
        if before < self._limit and not (isinstance(sampler, CellSampler) and sampler.is_past(drawn.number)):
            return drawn
        self.study.tell(drawn, state=OptunaState.FAIL)  # without a parameter: it is given back
        return None

    def rebuild(self, config: Config) -> Config:
        """Return a config whose `params` were changed, with the job that trains them."""
        return {**config, **self._config(config["number"], config["params"])}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep an intermediate value."""
        self._last[trial_id] = result
        self.ask(lambda: self._report(self._ot_trials[trial_id], result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell how the trial ended; a trial that is stopped while it pauses comes without its last result.

        Raises:
            RayLostError: it ended because Ray is gone.
        """
        if error:
            check_own_node()
        trial = self._ot_trials.pop(trial_id)
        told = result or self._last.get(trial_id)
        self._last.pop(trial_id, None)
        state = TrialState.INTERRUPTED if error and self._finished else outcome(told, error)
        self.ask(lambda: self._tell(trial, state, told))

    def _tell(self, trial: optuna.Trial, state: TrialState, told: Mapping[str, Any] | None) -> None:
        if state is TrialState.INTERRUPTED:
            self._put_back(trial)
        elif state is TrialState.FAIL:
            self.study.tell(trial, state=OptunaState.FAIL)
        else:
            assert told is not None  # noqa: S101  # narrows the type: without a result there is no such outcome
            self._report(trial, told)  # the scheduler's last word hides it from `on_trial_result`
            metrics = _unflatten(told)
            for constraint in self._constraints:
                trial.set_constraint(str(constraint), constraint.violation(metrics))
            if state is TrialState.PRUNED:
                self.study.tell(trial, state=OptunaState.PRUNED)
            elif len(self._objectives) == 1:
                self.study.tell(trial, told[OBJECTIVE])
            else:
                self.study.tell(trial, values_of(metrics, self._objectives))

    def note_params(self, trial_id: str, params: Mapping[str, Value]) -> None:
        """Keep the params that a trial has gone on with; Optuna's own are those it was drawn with."""
        self.ask(lambda: self._ot_trials[trial_id].set_user_attr(LAST_PARAMS, dict(params)))

    def interrupt_unfinished(self) -> None:
        """Put back every trial that is still RUNNING: the session was cut short."""
        for trial in self._ot_trials.values():
            self._put_back(trial)
        self._ot_trials.clear()

    def _put_back(self, trial: optuna.Trial) -> None:
        """Have a trial drawn again before anything new; in a shared study it stays RUNNING, for its driver alone."""
        if self._shared is None:
            requeue(self.study, trial)
        else:
            self._open.append(trial)

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of the pickle of itself that Tune writes and nothing reads."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study's storage is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study's storage is the state."""

    def _config(self, number: int, params: Mapping[str, Value]) -> Config:
        overrides = self._described.overrides(params)
        try:
            _, config_hash = self._resolve(overrides)
        except UsageError:  # the gang meets the same error and fails the trial with it
            config_hash = ""
        job = Job(self._ids[number], overrides, str(checkpoint_folder(self._checkpoints, number)), config_hash)
        return {"number": number, "params": dict(params), "job": job}

    def _report(self, trial: optuna.Trial, result: Mapping[str, Any]) -> None:
        if len(self._objectives) == 1:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The reported value is ignored")  # told before
                trial.report(result[OBJECTIVE], result[STEP])

    def _exhausted(self) -> bool:
        """Return whether no trial is left; what waits (the baseline, interrupted trials) comes first."""
        if self._open:
            return False
        if self._shared is not None and len(own_trials(self.study)) >= self._limit:
            return True
        sampler = self.study.sampler
        if not isinstance(sampler, CellSampler):
            return False
        waiting = self.study.get_trials(deepcopy=False, states=(OptunaState.WAITING,))
        return not waiting and sampler.left(self.study) == 0


def outcome(result: Mapping[str, Any] | None, error: bool = False) -> TrialState:
    """Return how a trial ended, from its last result; the one place where this is decided."""
    if error:
        return TrialState.FAIL
    if not result or result.get(INTERRUPTED):
        return TrialState.INTERRUPTED
    if result.get(ERROR) or not math.isfinite(result.get(OBJECTIVE, math.nan)):
        return TrialState.FAIL
    return TrialState.COMPLETE if result[FINISHED] else TrialState.PRUNED


def _unflatten(result: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the metrics of a result, which Tune hands to searchers with flattened keys."""
    if METRICS in result:
        metrics: Mapping[str, float] = result[METRICS]
        return metrics
    prefix = f"{METRICS}/"
    return {key.removeprefix(prefix): value for key, value in result.items() if key.startswith(prefix)}
