"""The Optuna study of a search: one file in its folder."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

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


def borrowed(study: optuna.Study) -> int:
    """Return how many trials were taken from elsewhere. They come first: numbers in the search are that much less."""
    return len(study.get_trials(deepcopy=False)) - len(own_trials(study))


def put_back(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> None:
    """Make a RUNNING trial WAITING, as an enqueued one is: `ask` returns it with what it has."""
    study._storage.set_trial_state_values(trial._trial_id, OptunaState.WAITING)
