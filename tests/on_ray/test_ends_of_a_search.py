"""Searches that do not reach their end leave nothing behind and say why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import optuna
import pytest
from analytic import Analytic, Script, Witness
from processes import left_of_a_search

from harness.search.run import SearchBrokenError, SearchPlan, run_search
from harness.search.searcher import journal
from harness.trials import Trial
from trainers.errors import UsageError

pytestmark = pytest.mark.usefixtures("ray_here")


class CtrlC(Witness):
    """Presses Ctrl-C at the third report."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Trial] = []
        self.handler_before = signal.getsignal(signal.SIGINT)

    def on_report(self, trial: Trial) -> None:
        super().on_report(trial)
        if trial.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    def on_end(self, trial: Trial) -> None:
        super().on_end(trial)
        self.ended.append(trial)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interrupted")


@pytest.fixture(scope="module")
def interrupted(ray_here: None, storage: Path) -> CtrlC:
    witness = CtrlC()
    plan = SearchPlan(name="interrupted", storage=storage, trials=3, grace_steps=1)
    with pytest.raises(KeyboardInterrupt):
        run_search(plan, Analytic(storage, step_s=0.3), Script([{}, {}, {}]), [witness])
    return witness


def test_ctrl_c_fails_the_running_trial(interrupted: CtrlC) -> None:
    assert [(trial.state, trial.error) for trial in interrupted.ended] == [("FAIL", "interrupted")]


def test_ctrl_c_lets_no_other_trial_start(interrupted: CtrlC) -> None:
    assert [event[1] for event in interrupted.events if event[0] == "start"] == [0]


def test_ctrl_c_is_told_to_optuna(interrupted: CtrlC, storage: Path) -> None:
    study = optuna.load_study(study_name=None, storage=journal(storage / "interrupted" / "optuna.journal"))
    assert [trial.state.name for trial in study.trials] == ["FAIL"]


def test_ctrl_c_means_what_it_meant_before(interrupted: CtrlC) -> None:
    assert signal.getsignal(signal.SIGINT) is interrupted.handler_before


def test_ctrl_c_leaves_no_process(interrupted: CtrlC) -> None:
    assert left_of_a_search() == []


def test_gangs_that_cannot_warm_up_end_the_search_with_the_reason(tmp_path: Path) -> None:
    plan = SearchPlan(name="broken", storage=tmp_path, trials=3, grace_steps=1)
    with pytest.raises(SearchBrokenError, match="no data here"):
        run_search(plan, Analytic(tmp_path, breaks_at_warm_up=True), Script([{}, {}, {}]))


def test_gangs_that_do_not_fit_are_refused_with_the_numbers(tmp_path: Path) -> None:
    plan = SearchPlan(name="large", storage=tmp_path, trials=1, grace_steps=1, gangs=3, workers_per_gang=2)
    with pytest.raises(UsageError, match="3 gangs of 2 need 6 CPUs, the cluster has 4"):
        run_search(plan, Analytic(tmp_path), Script([{}]))
