"""The Optuna study of a search, a file in its folder or a shared one, reconciled with the ledger when it goes on.

Events are written to the ledger and to Optuna's storage one after the other, so a driver that is killed leaves them one
event apart at most. A trial that either of them knows to be over is over; everything else goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from harness.formats import counted, one_line
from harness.ledger import LEDGER, History, Ledger, end_with_a_whole_line, json_lines, read_ledger
from harness.run_folder import put_aside
from harness.trials import SearchSpace, Trial, TrialState, Value
from harness.tuning.marks import num_imported, own_trials
from harness.tuning.objectives import Constraint, Objective
from harness.tuning.shared import Shared
from trainers.drafts import draft_of

JOURNAL = "optuna.journal"
"""File of a study in a search's folder."""
LOCK = f"{JOURNAL}.lock"
"""Optuna's own lock of that file, held for the time of a write."""


def journal(path: Path) -> optuna.storages.JournalStorage:
    """Open or make a study storage that is one file."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def open_study(folder: Path, name: str, shared: Shared | None = None) -> optuna.Study | None:
    """Return the study of a search, of a file in its folder where it is not a shared one; none where there is none yet.

    Raises:
        UsageError: the database of a shared one cannot be reached.
    """
    if shared is not None:
        return shared.found()
    if not (folder / JOURNAL).exists():
        return None
    storage = journal(folder / JOURNAL)
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage)


def requeue(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> None:
    """Make a RUNNING trial WAITING, as an enqueued one is: `ask` returns it with what it has."""
    study._storage.set_trial_state_values(trial._trial_id, OptunaState.WAITING)


LOST_REASON = "it had ended when the driver died; why was not written down"
OF_OPTUNA = {
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAIL,
}
TO_OPTUNA = {state: theirs for theirs, state in OF_OPTUNA.items()}


def reconcile(
    folder: Path, name: str, objective: Objective, history: History | None = None, shared: Shared | None = None,
    constraints: Sequence[Constraint] = (),
) -> History:  # fmt: skip
    """Return the history of a search, by its primary objective, after bringing its ledger and its study in line.

    Of a shared study the trials of other drivers are left alone, and what goes on stays RUNNING.

    Args:
        history: what the ledger tells, where that was just read.

    Raises:
        UsageError: the ledger cannot be read, or the database of a shared study cannot be reached.
    """
    history = history or read_ledger(folder / LEDGER, objective.maximise)
    break_lock(folder)
    end_with_a_whole_line(folder / JOURNAL)
    study = open_study(folder, name, shared)
    if study is None:
        return history
    first = num_imported(study)
    with closing(Ledger(folder / LEDGER, objective.metric)) as ledger:
        for theirs in own_trials(study):
            ours = history.trials.get(theirs.number - first)
            if shared is not None and not shared.trains(theirs):
                continue
            if ours is not None:
                _settle(study, ledger, theirs, ours, constraints)
            running = theirs.state is OptunaState.RUNNING and (ours is None or not ours.state.over)
            if running and shared is None:
                requeue(study, theirs)
    return history


def break_lock(folder: Path) -> None:
    """Take away the lock of a driver that was killed in a write, for which Optuna would wait 30 s.

    The caller is the folder's sole driver, so nobody else writes.
    """
    (folder / LOCK).unlink(missing_ok=True)


def fault_of(folder: Path, name: str, history: History, shared: Shared | None = None) -> str | None:
    """Return why a search cannot go on with its study, which must know all trials of the ledger; none where it can.

    Raises:
        UsageError: the database of a shared study cannot be reached.
    """
    if shared is not None:
        return _lack(shared.words, shared.found(), history, shared)
    if not (folder / JOURNAL).exists():
        return f"{JOURNAL} is missing" if history.trials else None
    try:
        for _ in json_lines(folder / JOURNAL):
            pass
        return _lack(JOURNAL, open_study(folder, name), history)
    except Exception as error:  # whatever a file that is none makes Optuna raise
        return f"{JOURNAL} cannot be read ({one_line(error)})"


def _lack(words: str, study: optuna.Study | None, history: History, shared: Shared | None = None) -> str | None:
    known = set[int]()
    if study is not None:
        first, trials = num_imported(study), own_trials(study)
        known = {trial.number - first for trial in trials if shared is None or shared.trains(trial)}
    lacking = len(history.trials.keys() - known)
    return f"{words} lacks {lacking} of the ledger's {counted(len(history.trials), 'trial')}" if lacking else None


def rebuild(
    folder: Path, name: str, space: SearchSpace, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> str:
    """Make the study anew from the ledger, keep what there was aside, and return what that means, a line.

    Trials that were taken from elsewhere are not in the ledger, nor are params that PBT changed later.

    Raises:
        UsageError: the ledger cannot be read; nothing was changed.
    """
    history = read_ledger(folder / LEDGER, objectives[0].maximise)
    break_lock(folder)
    with draft_of(folder / JOURNAL) as draft:
        if history.trials:
            _fill(draft, name, space, objectives, constraints, history)
        kept = f", the old one is kept as {put_aside(folder / JOURNAL).name}" if (folder / JOURNAL).exists() else ""
    return f"{JOURNAL} was rebuilt from the ledger, with {counted(len(history.trials), 'trial')}{kept}"


def _fill(
    path: Path, name: str, space: SearchSpace, objectives: Sequence[Objective], constraints: Sequence[Constraint],
    history: History,
) -> None:  # fmt: skip
    directions = [objective.direction for objective in objectives]
    study = optuna.create_study(storage=journal(path), sampler=_Known(history), study_name=name, directions=directions)
    set_metric_names(study, objectives)
    enqueue_starts(study, space)
    for number in range(max(history.trials) + 1):
        drawn, ours = study.ask(), history.trials.get(number)
        if ours is None:  # its driver died before it started: it is drawn again
            continue
        space.suggest(drawn)
    for theirs in study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
        ours = history.trials.get(theirs.number)
        if ours is not None and ours.state.over:
            tell(study, theirs, ours, constraints)
        else:
            if ours is not None:
                _report_missing(study, theirs, ours)
            requeue(study, theirs)


class _Known(optuna.samplers.RandomSampler):  # type: ignore[misc]  # optuna is skipped by mypy
    """Draws what a ledger says was drawn."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._trials = history.trials

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._trials[trial.number].params[param_name]


def starts(space: SearchSpace) -> list[Mapping[str, Value]]:
    """Return the baseline and, where the space has them, values of its own, which are drawn first."""
    return [params for params in (space.baseline_params, space.ours_params) if params]


def enqueue_starts(study: optuna.Study, space: SearchSpace) -> None:
    """Have the configurations that a search starts from drawn first."""
    for params in starts(space):
        study.enqueue_trial(dict(params))


def set_metric_names(study: optuna.Study, objectives: Sequence[Objective]) -> None:
    """Note which value of a trial is which objective."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric for objective in objectives])


def _settle(
    study: optuna.Study, ledger: Ledger, theirs: FrozenTrial, ours: Trial, constraints: Sequence[Constraint]
) -> None:
    """Make one trial mean the same in both books."""
    if theirs.state.is_finished() and not ours.state.over:
        ours.state = OF_OPTUNA[theirs.state]
        ours.error = LOST_REASON if ours.state is TrialState.FAIL else None
        ledger.on_end(ours)
    elif ours.state.over and not theirs.state.is_finished():
        tell(study, theirs, ours, constraints)
    elif not ours.state.over:
        _report_missing(study, theirs, ours)


def tell(study: optuna.Study, theirs: FrozenTrial, ours: Trial, constraints: Sequence[Constraint] = ()) -> None:
    """Tell a study how a trial ended, and by how much it misses constraints, whatever it took the trial for."""
    storage = study._storage
    single = len(study.directions) == 1
    if theirs.state is OptunaState.WAITING:  # a trial that waits takes no values
        storage.set_trial_state_values(theirs._trial_id, OptunaState.RUNNING)
    _report_missing(study, theirs, ours)
    for constraint in constraints if ours.state is not TrialState.FAIL else ():
        optuna.Trial(study, theirs._trial_id).set_constraint(str(constraint), constraint.violation(ours.metrics))
    values: list[float] | None = None
    if single and ours.values and ours.state is not TrialState.FAIL:
        values = [ours.values[-1][1]]  # of a PRUNED trial, too, as `study.tell` keeps it
    elif ours.state is TrialState.COMPLETE:
        values = [ours.metrics[metric] for metric in study.metric_names or []]
    storage.set_trial_state_values(theirs._trial_id, TO_OPTUNA[ours.state], values)


def _report_missing(study: optuna.Study, theirs: FrozenTrial, ours: Trial) -> None:
    """Tell a study the intermediate values that only the ledger has; with several objectives there are none."""
    if len(study.directions) > 1:
        return
    for step, value in ours.values:
        if step not in theirs.intermediate_values:
            study._storage.set_trial_intermediate_value(theirs._trial_id, step, value)
