"""A driver may die between any two books: whichever knows that a trial is over is believed."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from harness.event_log import LEDGER, Ledger, read_ledger
from harness.trials import Trial, TrialState
from harness.tuning.objectives import Objective
from harness.tuning.study import JOURNAL, journal, reconcile

MIOU = Objective("dev/miou", "max")


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """A study with one trial that runs and reported twice."""
    study = optuna.create_study(study_name="s", storage=journal(tmp_path / JOURNAL), direction="maximize")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(0.1, 10)
    trial.report(0.2, 20)
    return study


def ledger(folder: Path, state: TrialState | None = None) -> None:
    """A ledger of the same trial, with an end if a state is given."""
    book = Ledger(folder / LEDGER, "dev/miou")
    trial = Trial(0, {"x": 0.5}, {})
    book.on_start(trial)
    for step, value in ((10, 0.1), (20, 0.2)):
        trial.take_in({"step": float(step), "dev/miou": value}, value)
        book.on_report(trial)
    if state is not None:
        trial.state = state
        book.on_end(trial)
    book.close()


def reopened(folder: Path) -> optuna.trial.FrozenTrial:
    return optuna.load_study(study_name="s", storage=journal(folder / JOURNAL)).trials[0]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_optuna_is_told_what_only_the_ledger_knows(tmp_path: Path, study: optuna.Study, state: TrialState) -> None:
    ledger(tmp_path, state)
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).state.name == state


def test_optuna_is_told_the_value_of_a_complete_trial(tmp_path: Path, study: optuna.Study) -> None:
    ledger(tmp_path, TrialState.COMPLETE)
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).value == 0.2


def test_a_trial_that_waits_can_be_told_too(tmp_path: Path, study: optuna.Study) -> None:
    study._storage.set_trial_state_values(study.trials[0]._trial_id, OptunaState.WAITING)
    ledger(tmp_path, TrialState.PRUNED)
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).state is OptunaState.PRUNED


def test_the_ledger_is_told_what_only_optuna_knows(tmp_path: Path, study: optuna.Study) -> None:
    study.tell(0, state=OptunaState.PRUNED)
    ledger(tmp_path)
    reconcile(tmp_path, "s", MIOU)
    assert read_ledger(tmp_path / LEDGER).trials[0].state is TrialState.PRUNED


def test_a_trial_that_nobody_knows_to_be_over_waits_to_go_on(tmp_path: Path, study: optuna.Study) -> None:
    ledger(tmp_path)
    history = reconcile(tmp_path, "s", MIOU)
    assert (reopened(tmp_path).state, history.trials[0].state) == (OptunaState.WAITING, TrialState.INTERRUPTED)


def test_a_trial_that_was_drawn_but_never_started_waits(tmp_path: Path, study: optuna.Study) -> None:
    assert reconcile(tmp_path, "s", MIOU).trials == {}
    assert reopened(tmp_path).state is OptunaState.WAITING


def test_a_journal_that_ends_in_half_a_line_can_be_opened(tmp_path: Path, study: optuna.Study) -> None:
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op_code": 5, "work')
    reconcile(tmp_path, "s", MIOU)
    assert reopened(tmp_path).intermediate_values == {10: 0.1, 20: 0.2}


def test_a_new_folder_has_no_history(tmp_path: Path) -> None:
    assert reconcile(tmp_path, "s", MIOU).trials == {}
