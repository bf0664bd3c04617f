"""The Optuna study of a search: one file in its folder, reconciled with the ledger when a search goes on.

Events are written to the ledger and to Optuna's storage one after the other, so a driver that is killed leaves them one
event apart at most. A trial that either of them knows to be over is over; everything else goes on.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from harness.event_log import LEDGER, History, Ledger, end_with_a_whole_line, read_ledger
from harness.trials import Trial, TrialState
from harness.tuning.objectives import Objective

JOURNAL = "optuna.journal"
"""File of a study in a search's folder."""
MARK = "s4.warm_start"
"""User attribute of a trial that was taken from elsewhere: its source."""


def journal(path: Path) -> optuna.storages.JournalStorage:
    """Open or make a study storage that is one file."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def open_study(folder: Path, name: str) -> optuna.Study | None:
    """Return the study in a search's folder; none where the search drew no trial yet."""
    if not (folder / JOURNAL).exists():
        return None
    storage = journal(folder / JOURNAL)
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage)


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of the search itself, without those it was started from; they come in order of number."""
    return [trial for trial in study.get_trials(deepcopy=False) if MARK not in trial.user_attrs]


def num_imported(study: optuna.Study) -> int:
    """Return how many trials were taken from elsewhere. They come first: numbers in the search are that much less."""
    return len(study.get_trials(deepcopy=False)) - len(own_trials(study))


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


def reconcile(folder: Path, name: str, objective: Objective) -> History:
    """Return the history of a search, by its primary objective, after bringing its ledger and its study in line.

    Raises:
        UsageError: the ledger cannot be read.
    """
    history = read_ledger(folder / LEDGER, objective.maximise)
    end_with_a_whole_line(folder / JOURNAL)
    study = open_study(folder, name)
    if study is None:
        return history
    first = num_imported(study)
    with closing(Ledger(folder / LEDGER, objective.metric)) as ledger:
        for theirs in study.get_trials(deepcopy=False)[first:]:
            ours = history.trials.get(theirs.number - first)
            if ours is not None:
                _settle(study, ledger, theirs, ours)
            if theirs.state is OptunaState.RUNNING and (ours is None or not ours.state.over):
                requeue(study, theirs)
    return history


def _settle(study: optuna.Study, ledger: Ledger, theirs: FrozenTrial, ours: Trial) -> None:
    """Make one trial mean the same in both books."""
    if theirs.state.is_finished() and not ours.state.over:
        ours.state = OF_OPTUNA[theirs.state]
        ours.error = LOST_REASON if ours.state is TrialState.FAIL else None
        ledger.on_end(ours)
    elif ours.state.over and not theirs.state.is_finished():
        tell(study, theirs, ours)
    elif not ours.state.over:
        _report_missing(study, theirs, ours)


def tell(study: optuna.Study, theirs: FrozenTrial, ours: Trial) -> None:
    """Tell a study how a trial ended, whatever it took the trial for."""
    storage = study._storage
    single = len(study.directions) == 1
    if theirs.state is OptunaState.WAITING:  # a trial that waits takes no values
        storage.set_trial_state_values(theirs._trial_id, OptunaState.RUNNING)
    _report_missing(study, theirs, ours)
    values: list[float] | None = None
    if ours.state is TrialState.COMPLETE:
        several = study.metric_names or []
        values = [ours.values[-1][1]] if single else [ours.metrics[metric] for metric in several]
    storage.set_trial_state_values(theirs._trial_id, TO_OPTUNA[ours.state], values)


def _report_missing(study: optuna.Study, theirs: FrozenTrial, ours: Trial) -> None:
    """Tell a study the intermediate values that only the ledger has; with several objectives there are none."""
    if len(study.directions) > 1:
        return
    for step, value in ours.values:
        if step not in theirs.intermediate_values:
            study._storage.set_trial_intermediate_value(theirs._trial_id, step, value)
