"""A gang of two workers that train each trial together."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from analytic import Analytic, Script, Witness, plan_of
from processes import left_of_a_search

from harness.trials import Trial

SCRIPT = [{}, {"behave": "raise"}, {}, {"behave": "raise on rank 1"}, {}]


@dataclass
class Search:
    trials: list[Trial]
    witness: Witness


@pytest.fixture(scope="module")
def search(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Search:
    storage = tmp_path_factory.mktemp("two")
    plan = plan_of(storage / "two", trials=len(SCRIPT), grace_steps=1, scheduler="none", workers_per_gang=2)
    witness = Witness()
    return Search(plan.run(Analytic(storage), Script(SCRIPT), [witness]).trials, witness)


def pid(search: Search, number: int) -> float:
    return search.witness.reports[number][-1]["pid"]


def test_every_trial_ends_in_its_true_state(search: Search) -> None:
    assert [trial.state for trial in search.trials] == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]


def test_the_ranks_work_together(search: Search) -> None:
    assert {report["ranks"] for report in search.witness.reports[0]} == {2.0}


def test_an_exception_on_all_ranks_leaves_the_processes_alive(search: Search) -> None:
    assert pid(search, 2) == pid(search, 0)


def test_an_exception_on_one_rank_is_told_with_its_traceback(search: Search) -> None:
    assert "RuntimeError: a bug in training" in str(search.trials[3].error)


def test_an_exception_on_one_rank_restarts_the_gang(search: Search) -> None:
    assert pid(search, 4) != pid(search, 0)


def test_no_process_is_left(search: Search) -> None:
    assert left_of_a_search() == []
