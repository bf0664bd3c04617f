"""Searches that do not reach their end leave nothing behind and say why."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import optuna
import pytest
from analytic import Analytic, Script, Witness, plan_of
from optuna.trial import FrozenTrial
from processes import left_of_a_search

from harness.one_driver import LOCK, Lock
from harness.trials import GangsBrokenError, Trial
from harness.tuning.run import SearchEnd
from harness.tuning.study import journal
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


class DelayedCtrlC(Witness):
    """Presses Ctrl-C some time after a report."""

    def __init__(self, step: int, delay_s: float) -> None:
        super().__init__()
        self._step = step
        self._delay_s = delay_s

    def on_report(self, trial: Trial) -> None:
        super().on_report(trial)
        if trial.step == self._step:
            threading.Timer(self._delay_s, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interrupted")


@pytest.fixture(scope="module")
def interrupted(ray_here: None, storage: Path) -> CtrlC:
    witness = CtrlC()
    plan = plan_of(storage / "interrupted", trials=3, grace_steps=1)
    with pytest.raises(KeyboardInterrupt):
        plan.run(Analytic(storage, step_s=0.3), Script([{}, {}, {}]), [witness])
    return witness


@pytest.fixture(scope="module")
def before(interrupted: CtrlC, storage: Path) -> list[FrozenTrial]:
    """Optuna's trials when the first session had ended."""
    return optuna.load_study(study_name=None, storage=journal(storage / "interrupted" / "optuna.journal")).trials


@pytest.fixture(scope="module")
def resumed(before: list[FrozenTrial], storage: Path) -> Witness:
    witness = Witness()
    plan = plan_of(storage / "interrupted", trials=3, grace_steps=1, scheduler="none")
    plan.run(Analytic(storage), Script([{}, {}, {}]), [witness])
    return witness


def test_ctrl_c_interrupts_the_running_trial(interrupted: CtrlC) -> None:
    assert [(event[0], event[3]) for event in interrupted.events if event[0] == "end"] == [("end", "INTERRUPTED")]


def test_ctrl_c_lets_no_other_trial_start(interrupted: CtrlC) -> None:
    assert [event[1] for event in interrupted.events if event[0] == "start"] == [0]


def test_ctrl_c_leaves_no_optuna_trial_running(before: list[FrozenTrial]) -> None:
    assert {trial.state.name for trial in before} == {"WAITING"}


def test_an_interrupted_trial_goes_on_after_the_last_report_of_the_first_session(
    interrupted: CtrlC, resumed: Witness
) -> None:
    steps = [report["step"] for witness in (interrupted, resumed) for report in witness.reports[0]]
    assert steps == list(range(1, 10))


def test_a_trial_that_is_interrupted_between_reports_is_saved_after_its_next_step(
    ray_here: None, tmp_path: Path
) -> None:
    """Reports are at steps 6 and 9; Ctrl-C comes at the first, from another thread a little later."""
    plan = plan_of(tmp_path / "between", trials=1, grace_steps=1, scheduler="none", save_interval_s=999)
    experiment = Analytic(tmp_path, step_s=0.3, report_every=6)
    with pytest.raises(KeyboardInterrupt):
        plan.run(experiment, Script([{"name": "x"}]), [DelayedCtrlC(6, 0.5)])
    witness = Witness()
    plan.run(experiment, Script([{"name": "x"}]), [witness])
    trained = [int(line) for line in (tmp_path / "x.steps").read_text().split()]
    assert trained == list(range(1, 10))


def test_an_interrupted_trial_repeats_no_step(interrupted: CtrlC, resumed: Witness) -> None:
    assert resumed.reports[0][0]["trained"] == 1


def test_a_resumed_search_has_as_many_trials_as_were_asked_for(resumed: Witness, storage: Path) -> None:
    study = optuna.load_study(study_name=None, storage=journal(storage / "interrupted" / "optuna.journal"))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3


def test_a_resumed_trial_keeps_its_parameters(before: list[FrozenTrial], resumed: Witness, storage: Path) -> None:
    study = optuna.load_study(study_name=None, storage=journal(storage / "interrupted" / "optuna.journal"))
    assert study.trials[0].params == before[0].params


def test_a_search_that_is_over_trains_nothing_more(resumed: Witness, storage: Path) -> None:
    witness = Witness()
    plan = plan_of(storage / "interrupted", trials=3, grace_steps=1)
    end = plan.run(Analytic(storage), Script([{}, {}, {}]), [witness])
    assert (len(end.trials), witness.events) == (3, [])


def test_ctrl_c_means_what_it_meant_before(interrupted: CtrlC) -> None:
    assert signal.getsignal(signal.SIGINT) is interrupted.handler_before


def test_ctrl_c_leaves_no_process(interrupted: CtrlC) -> None:
    assert left_of_a_search() == []


def test_gangs_that_cannot_warm_up_end_the_search_with_the_reason(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "broken", trials=3, grace_steps=1)
    with pytest.raises(GangsBrokenError, match="no data here"):
        plan.run(Analytic(tmp_path, breaks_at_warm_up=True), Script([{}, {}, {}]))


def test_gangs_that_do_not_fit_are_refused_with_the_numbers(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "large", trials=1, grace_steps=1, gangs=3, workers_per_gang=2)
    with pytest.raises(UsageError, match="3 gangs of 2 need 6 CPUs, the cluster has 4"):
        plan.run(Analytic(tmp_path), Script([{}]))


def test_a_limit_interrupts_the_search_and_more_of_it_lets_it_go_on(tmp_path: Path) -> None:
    def session(**caps: float) -> SearchEnd:
        plan = plan_of(tmp_path / "limited", trials=2, grace_steps=1, scheduler="none", **caps)
        return plan.run(Analytic(tmp_path, step_s=0.5), Script([{}, {}]))

    first = session(max_device_hours=1 / 3600)
    assert first.reason == "the cap of 0.000277778 device-hours is reached"
    assert "INTERRUPTED" in {str(trial.state) for trial in first.trials} or len(first.trials) < 2
    assert session(max_device_hours=1).reason is None
    assert {str(trial.state) for trial in session().trials} == {"COMPLETE"}


def test_a_gang_is_started_anew_after_as_many_trials_as_one_may_train(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "recycled", trials=4, grace_steps=1, scheduler="none", recycle_after=2)
    witness = Witness()
    trials = plan.run(Analytic(tmp_path), Script([{}] * 4), [witness]).trials
    pids = [{report["pid"] for report in witness.reports[number]} for number in range(4)]
    assert {str(trial.state) for trial in trials} == {"COMPLETE"}
    assert (pids[0] == pids[1], pids[2] == pids[3], pids[1] == pids[2]) == (True, True, False)


def test_a_search_has_one_driver(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "alone", trials=1, grace_steps=1)
    lock = Lock(plan.folder / LOCK)
    with pytest.raises(UsageError, match="must have one driver"):
        plan.run(Analytic(tmp_path), Script([{}]))
    lock.release()
