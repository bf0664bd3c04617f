"""Going on with a search whose driver ended, in order or not: one truth out of two books.

Events are written to the ledger and to Optuna's storage one after the other, so a driver that is killed leaves them one
event apart at most. A trial that either of them knows to be over is over; everything else goes on.
"""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from harness.files import end_with_a_whole_line
from harness.search.ledger import LEDGER, History, Ledger, read_ledger
from harness.search.objectives import Objective
from harness.search.study import JOURNAL, borrowed, open_study, put_back
from harness.trials import Trial, TrialState

LOST_REASON = "it had ended when the driver died; why was not written down"
OF_OPTUNA = {
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAIL,
}
TO_OPTUNA = {state: theirs for theirs, state in OF_OPTUNA.items()}


def open_books(folder: Path, name: str, objective: Objective) -> History:
    """Return the history of a search after bringing its ledger and its study in line.

    Args:
        objective: the primary one.

    Raises:
        UsageError: the ledger cannot be read.
    """
    history = read_ledger(folder / LEDGER, objective.maximise)
    end_with_a_whole_line(folder / JOURNAL)
    study = open_study(folder, name)
    if study is None:
        return history
    first = borrowed(study)
    ledger = Ledger(folder / LEDGER, objective.metric)
    try:
        for theirs in study.get_trials(deepcopy=False)[first:]:
            ours = history.trials.get(theirs.number - first)
            if ours is not None:
                _settle(study, ledger, theirs, ours)
            if theirs.state is OptunaState.RUNNING and (ours is None or not ours.state.over):
                put_back(study, theirs)
    finally:
        ledger.close()
    return history


def _settle(study: optuna.Study, ledger: Ledger, theirs: FrozenTrial, ours: Trial) -> None:
    """Make one trial mean the same in both books."""
    if theirs.state.is_finished() and not ours.state.over:
        ours.state = OF_OPTUNA[theirs.state]
        ours.error = LOST_REASON if ours.state is TrialState.FAIL else None
        ledger.on_end(ours)
    elif ours.state.over and not theirs.state.is_finished():
        tell(study, theirs, ours)


def tell(study: optuna.Study, theirs: FrozenTrial, ours: Trial) -> None:
    """Tell a study how a trial ended, whatever it took the trial for."""
    storage = study._storage
    single = len(study.directions) == 1
    if theirs.state is OptunaState.WAITING:  # a trial that waits takes no values
        storage.set_trial_state_values(theirs._trial_id, OptunaState.RUNNING)
    if single:
        for step, value in ours.values:
            if step not in theirs.intermediate_values:
                storage.set_trial_intermediate_value(theirs._trial_id, step, value)
    values: list[float] | None = None
    if ours.state is TrialState.COMPLETE:
        several = study.metric_names or []
        values = [ours.values[-1][1]] if single else [ours.metrics[metric] for metric in several]
    storage.set_trial_state_values(theirs._trial_id, TO_OPTUNA[ours.state], values)
