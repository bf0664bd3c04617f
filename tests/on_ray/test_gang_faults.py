"""One gang trains nine trials, most of which misbehave: each is told truly, and none touches the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from analytic import Analytic, Script, Witness, plan_of
from processes import left_of_a_search

from harness.trials import Trial
from harness.tuning.study import journal

SCRIPT = [
    {"quality": 0.5},
    {"behave": "vandalise"},
    {"quality": 0.5},
    {"behave": "raise"},
    {"behave": "diverge"},
    {"behave": "report nan"},
    {"quality": 5.0},
    {"behave": "lie"},
    {"behave": "leave early"},
    {"behave": "kill once"},
    {"quality": 0.5},
]


@dataclass
class Search:
    trials: list[Trial]
    witness: Witness
    study: optuna.Study
    folder: Path


@pytest.fixture(scope="module")
def search(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Search:
    storage = tmp_path_factory.mktemp("faults")
    plan = plan_of(storage / "faults", trials=len(SCRIPT), grace_steps=1, scheduler="none", save_interval_s=0)
    witness = Witness()
    trials = plan.run(Analytic(storage), Script(SCRIPT), [witness]).trials
    study = optuna.load_study(study_name="faults", storage=journal(plan.folder / "optuna.journal"))
    return Search(trials, witness, study, plan.folder)


def metrics(search: Search, number: int, name: str) -> list[float]:
    return [report[name] for report in search.witness.reports[number]]


def test_trial_0_is_the_baseline(search: Search) -> None:
    assert search.trials[0].params["x"] == 0.25


def test_every_trial_ends_in_its_true_state(search: Search) -> None:
    expected = ["COMPLETE"] * 3 + ["FAIL"] * 6 + ["COMPLETE"] * 2
    assert [trial.state for trial in search.trials] == expected


def test_optuna_is_told_the_same_states(search: Search) -> None:
    assert [trial.state.name for trial in search.study.trials] == [trial.state for trial in search.trials]


def test_optuna_is_told_the_final_value(search: Search) -> None:
    assert search.study.trials[0].value == pytest.approx(0.5)


def test_an_observer_sees_start_reports_and_end_in_order(search: Search) -> None:
    events = [event for event in search.witness.events if event[1] == 0]
    reports = [("report", 0, step, "RUNNING") for step in range(1, 10)]
    assert events == [("start", 0, 0, "RUNNING"), *reports, ("end", 0, 9, "COMPLETE")]


def test_a_trial_gives_the_same_numbers_after_one_that_changed_global_state(search: Search) -> None:
    assert metrics(search, 2, "random") == metrics(search, 0, "random")


def test_a_trial_gives_the_same_numbers_in_a_restarted_process(search: Search) -> None:
    assert metrics(search, 10, "random") == metrics(search, 0, "random")


def test_an_exception_is_told_with_its_traceback(search: Search) -> None:
    error = search.trials[3].error
    assert error is not None
    assert "in misbehave" in error
    assert "RuntimeError: a bug in training" in error


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (4, "DivergedError: the loss is not finite"),
        (5, "DivergedError: not finite at step 5: dev/miou"),
        (6, "UsageError: quality must be at most 1, got 5.0: lower it"),
    ],
)
def test_an_expected_failure_is_told_in_one_line(search: Search, number: int, error: str) -> None:
    assert search.trials[number].error == error


def test_a_trial_that_used_another_config_fails(search: Search) -> None:
    assert "has hash 'another hash'" in str(search.trials[7].error)


def test_a_trial_that_stops_by_itself_fails(search: Search) -> None:
    assert "before its horizon" in str(search.trials[8].error)


def test_failures_of_trials_leave_the_process_alive(search: Search) -> None:
    pids = {pid for number in (0, 1, 2, 3, 4, 5, 7, 8) for pid in metrics(search, number, "pid")}
    assert len(pids) == 1


def test_a_killed_worker_is_replaced(search: Search) -> None:
    assert len(set(metrics(search, 9, "pid"))) == 2


def test_a_trial_whose_worker_was_killed_goes_on_after_its_last_report(search: Search) -> None:
    assert metrics(search, 9, "step") == [float(step) for step in range(1, 10)]


def test_a_warm_gang_starts_a_trial_within_half_a_second(search: Search) -> None:
    starts = [search.witness.reports[number][0]["overhead/start_s"] for number in (1, 2, 3, 4, 5, 7, 8)]
    assert sorted(starts)[len(starts) // 2] < 0.5


def test_a_report_costs_less_than_50_ms(search: Search) -> None:
    reports = [report for number in (0, 1, 2) for report in search.witness.reports[number][1:]]
    costs = [report["overhead/report_s"] for report in reports]
    assert sorted(costs)[len(costs) // 2] < 0.05


def test_checkpoints_of_complete_trials_are_kept_and_no_others(search: Search) -> None:
    kept = sorted(path.parent.name for path in (search.folder / "trials").glob("*/latest.pt"))
    assert kept == ["00000", "00001", "00002", "00009", "00010"]


def test_no_process_is_left(search: Search) -> None:
    assert left_of_a_search() == []


def test_no_optuna_trial_is_left_running(search: Search) -> None:
    assert all(trial.state.is_finished() for trial in search.study.trials)
