"""Schedulers that pause, save and clone, and samplers with several objectives, over real gangs."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from analytic import Analytic, Witness, plan_of, quality_space
from books import read_books
from processes import left_of_a_search

from harness.trials import Trial
from harness.tuning.study import JOURNAL, journal

pytestmark = [pytest.mark.usefixtures("ray_here"), pytest.mark.timeout(600)]


def search(tmp_path: Path, trials: int = 8, horizon: int = 9, **settings: object) -> tuple[list[Trial], Witness]:
    """Search the quality of the stand-in; better qualities have better values at every step."""
    plan = plan_of(tmp_path / "s", trials=trials, grace_steps=3, patience_s=10, **settings)
    witness = Witness()
    end = plan.run(Analytic(tmp_path, horizon=horizon), quality_space(), [witness])
    assert end.reason is None
    return end.trials, witness


def study_of(tmp_path: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=journal(tmp_path / "s" / JOURNAL))


def test_hyperband_pauses_halves_and_continues_trials(tmp_path: Path) -> None:
    trials, witness = search(tmp_path, trials=9, scheduler="hyperband", sampler="random", gangs=2)
    assert {str(trial.state) for trial in trials} == {"COMPLETE", "PRUNED"}
    assert all([report["step"] for report in reports] == list(range(1, len(reports) + 1))
               for reports in witness.reports.values())  # fmt: skip
    books = read_books(tmp_path / "s", tmp_path)
    assert books.ledger == books.optuna
    assert all(books.repeated(name) == 0 for name in books.steps)
    assert left_of_a_search() == []


def test_pbt_lets_the_worst_go_on_from_the_best(tmp_path: Path) -> None:
    trials, witness = search(tmp_path, trials=4, scheduler="pbt", sampler="random", gangs=2)
    assert [str(trial.state) for trial in trials] == ["COMPLETE"] * 4
    changed = [number for number, reports in witness.reports.items()
               if len({report["quality"] for report in reports}) > 1]  # fmt: skip
    assert changed
    assert all(trials[number].params == study_of(tmp_path).trials[number].user_attrs["s4.last_params"]
               for number in changed)  # fmt: skip


def test_a_pareto_front_is_sought_over_several_objectives(tmp_path: Path) -> None:
    objectives = ("dev/miou", "cost:min")
    trials, _ = search(tmp_path, trials=6, scheduler="none", sampler="nsga2", objective=objectives)
    study = study_of(tmp_path)
    expected = [[trial.metrics["dev/miou"], trial.metrics["cost"]] for trial in trials]
    assert [trial.values for trial in study.trials] == expected
    assert len(study.best_trials) == 6  # what is better costs more


def test_what_violates_a_constraint_is_told_to_optuna(tmp_path: Path) -> None:
    constraints = ("cost<=1",)
    trials, _ = search(tmp_path, trials=6, scheduler="asha", constraint=constraints)
    told = [trial.constraints["cost<=1"] for trial in study_of(tmp_path).trials]
    assert told == pytest.approx([trial.metrics["cost"] - 1 for trial in trials])


def test_a_grid_ends_when_its_cells_are_used_up(tmp_path: Path) -> None:
    trials, _ = search(tmp_path, trials=50, scheduler="none", sampler="grid", grid_points=3)
    assert sorted(trial.params["quality"] for trial in trials) == pytest.approx([0.0, 0.25, 0.5, 1.0])


def test_one_gang_draws_and_finds_the_same_twice(tmp_path: Path) -> None:
    def once(name: str) -> list[tuple[object, ...]]:
        (tmp_path / name).mkdir()
        trials, witness = search(tmp_path / name, trials=8)
        return [
            (trial.params, str(trial.state), [report["dev/miou"] for report in witness.reports[trial.number]])
            for trial in trials
        ]

    assert once("first") == once("second")
