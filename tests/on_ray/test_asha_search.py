"""Two gangs, ASHA, and better trials first: the worse are stopped, and everyone is told so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from analytic import Analytic, Script, Witness, plan_of
from processes import left_of_a_search

from harness.trials import Trial
from harness.tuning.study import journal

QUALITIES = [0.9, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]


@dataclass
class Search:
    trials: list[Trial]
    witness: Witness
    study: optuna.Study
    folder: Path


@pytest.fixture(scope="module")
def search(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Search:
    storage = tmp_path_factory.mktemp("asha")
    plan = plan_of(storage / "asha", trials=len(QUALITIES), grace_steps=3, gangs=2)
    witness = Witness()
    experiment = Analytic(storage, step_s=0.05)
    trials = plan.run(experiment, Script([{"quality": quality} for quality in QUALITIES]), [witness]).trials
    study = optuna.load_study(study_name="asha", storage=journal(plan.folder / "optuna.journal"))
    return Search(trials, witness, study, plan.folder)


def pruned(search: Search) -> list[int]:
    return [trial.number for trial in search.trials if trial.state == "PRUNED"]


def test_the_worse_trials_are_stopped(search: Search) -> None:
    assert pruned(search)[-5:] == [3, 4, 5, 6, 7]


def test_the_best_trial_is_complete(search: Search) -> None:
    assert search.trials[0].state == "COMPLETE"


def test_a_stopped_trial_stops_at_the_report_that_decided(search: Search) -> None:
    assert {search.trials[number].step for number in pruned(search)[-5:]} == {3}


def test_optuna_is_told_pruned(search: Search) -> None:
    told = [trial.number for trial in search.study.trials if trial.state.name == "PRUNED"]
    assert told == pruned(search)


def test_optuna_has_the_intermediate_values_at_their_steps(search: Search) -> None:
    assert search.study.trials[7].intermediate_values == pytest.approx({1: 0.05 / 9, 2: 0.1 / 9, 3: 0.15 / 9})


def test_observers_are_told_pruned(search: Search) -> None:
    assert search.witness.events[-1][3] in ("PRUNED", "COMPLETE")
    assert ("end", 7, 3, "PRUNED") in search.witness.events


def test_both_gangs_train(search: Search) -> None:
    assert len({report["pid"] for reports in search.witness.reports.values() for report in reports}) == 2


def test_the_best_value_is_kept_with_its_step(search: Search) -> None:
    assert search.trials[0].best == {"value": pytest.approx(0.9), "step": 9}


def test_no_process_is_left(search: Search) -> None:
    assert left_of_a_search() == []
