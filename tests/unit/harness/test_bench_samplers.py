"""The simulation behind `bench_samplers.py`: the nearest curve, the budget, and HyperBand's pauses."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from bench_samplers import GANGS, MARKS, SPACE, STOCK, Curves, Outcome, search
from record_curves import EVERY, HORIZON, STEPS, draw, opened
from virtual_tune import Curve, VirtualTune

from harness.tuning.objectives import Objective
from harness.tuning.schedulers import make_scheduler
from search_spaces import load_space


class Draws:
    """A searcher that writes down what it is told."""

    def __init__(self) -> None:
        self.told: dict[str, list[int | None]] = {}

    def suggest(self, trial_id: str) -> Mapping[str, Any]:
        return {"params": {"level": int(trial_id) % 7}}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.told.setdefault(trial_id, []).append(result["step"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None) -> None:
        self.told.setdefault(trial_id, []).append(result["step"] if result else None)


def play(scheduler: str, reports: int) -> tuple[VirtualTune, Draws]:
    searcher = Draws()

    def train(number: int, params: Mapping[str, Any]) -> Curve:
        return lambda step: step * params["level"] + number / 1000

    rule = make_scheduler(scheduler, objective=Objective("dev/miou", "max"), horizon=81, grace_steps=9)
    tune = VirtualTune(searcher, rule, train, horizon=81, report_every=9, gangs=2, pauses=scheduler == "hyperband")
    for spent in tune.play():
        if spent >= 9 * reports:
            break
    return tune, searcher


def test_hyperbands_paused_trials_go_on_or_are_stopped_without_a_result() -> None:
    tune, searcher = play("hyperband", reports=400)
    assert {trial.result["step"] for trial in tune.ended()} == {9, 27, 81}
    stopped = [told for told in searcher.told.values() if told[-1] is None]
    assert stopped
    assert all(told[-2] in (9, 27) for told in stopped)
    complete = [told for told in searcher.told.values() if told[-1] == 81]
    assert complete
    assert all(told == list(range(9, 82, 9)) for told in complete)
    finished, ended = ([trial.params["level"] for trial in trials] for trials in (tune.finished(), tune.ended()))
    assert np.mean(finished) > np.mean(ended) + 0.5


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_as_many_trials_run_as_there_are_gangs_and_every_step_counts(scheduler: str) -> None:
    tune, _ = play(scheduler, reports=100)
    assert sum(trial.status == "RUNNING" for trial in tune.trials) == 2
    assert sum(trial.result["step"] for trial in tune.trials) == 900


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Curves of 60 draws that end the higher, the nearer lambda_u is to 1; not a training."""
    file, space = tmp_path_factory.mktemp("curves") / "curves.csv", load_space(SPACE)
    with opened(file, space) as rows:
        for params in draw(space, 60):
            end = 0.5 - 0.1 * abs(math.log(params["loss.lambda_u"]))
            rows.add(params, [end * step / HORIZON for step in STEPS])
    return file


def test_a_recorded_setting_has_its_own_curve(file: Path) -> None:
    space = load_space(SPACE)
    curves = Curves(space, file)
    assert curves.scores.shape == (60, HORIZON // EVERY)
    for place, params in enumerate(draw(space, 5)):
        np.testing.assert_array_equal(curves.nearest(params), curves.scores[place])
    assert curves.best == curves.scores[:, -1].max()


def test_rows_that_a_file_has_are_counted_and_kept(file: Path) -> None:
    before = file.read_text()
    with opened(file, load_space(SPACE)) as rows:
        assert rows.done == 60
    assert file.read_text() == before


@pytest.mark.parametrize("row", [STOCK, ("random", "hyperband"), ("tpe", "asha"), ("cmaes", "median")])
def test_regret_falls_and_the_same_seed_gives_the_same_search(row: tuple[str, str], file: Path) -> None:
    first, again = search(row, 3, file), search(row, 3, file)
    assert Outcome(first.regrets, first.trials, 0) == Outcome(again.regrets, again.trials, 0)
    assert list(first.regrets) == sorted(first.regrets, reverse=True)
    assert first.regrets[-1] >= 0
    assert first.trials >= MARKS[-1] - GANGS


def test_what_all_searches_begin_with_is_no_merit_of_a_sampler(file: Path, tmp_path: Path) -> None:
    space, best = load_space(SPACE), tmp_path / "best.csv"
    best.write_text(file.read_text())
    with opened(best, space) as rows:  # the trial that all begin with is the best of the table
        rows.add(space.baseline_params, [0.9] * len(STEPS))
    assert Curves(space, best).best == 0.9
    assert search(("random", "none"), 3, best).regrets[0] > 0.3
