"""The simulation behind `bench_truth.py`: optima are optima, and what it tells searchers is what Tune tells them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from bench_truth import compare, run_pair
from truth_objectives import HORIZON, NAMES, OBJECTIVES, REPORT_EVERY
from truth_simulation import SEARCHERS, Outcome, Searcher, simulate


@pytest.fixture(scope="module")
def pairs() -> Mapping[str, dict[str, Outcome]]:
    return {name: run_pair(name, seed=7, horizons=6) for name in ("parallel", "edge")}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_no_point_is_better_than_the_optimum(name: str, seed: int) -> None:
    objective = OBJECTIVES[name]
    at = objective.place(seed)
    draws = np.random.default_rng(0).random((2000, 3))
    values = [objective.curve(dict(zip(NAMES, point, strict=True)), at, 1.0) for point in draws]
    assert max(value for value in values if not math.isnan(value)) <= at.value


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_optimum_is_reached(name: str) -> None:
    objective = OBJECTIVES[name]
    at = objective.place(0)
    values = [objective.curve({"rate": rate, "u": at.u, "v": at.v}, at, 1.0) for rate in np.linspace(0, 1, 5001)]
    assert max(value for value in values if not math.isnan(value)) == pytest.approx(at.value, abs=2e-4)
    # The slope is at most 1, and the optimum is at most 1e-4 from a point of the grid.


def test_an_early_value_of_decaying_beats_the_best_final_one() -> None:
    objective = OBJECTIVES["decaying"]
    at = objective.place(0)
    worst_rate = {"rate": 0.0 if at.rate > 0.5 else 1.0, "u": at.u, "v": at.v}
    assert objective.curve(worst_rate, at, 9 / HORIZON) > at.value


def test_stock_calls_stopped_trials_complete_and_ours_does_not(pairs: Mapping[str, dict[str, Outcome]]) -> None:
    stock, truthful = (pairs["parallel"][name].false_complete for name in ("stock", "truthful"))
    assert (stock > 0, truthful) == (True, 0)


def test_stock_leaves_each_trial_that_diverged_running_and_ours_none(
    pairs: Mapping[str, dict[str, Outcome]],
) -> None:
    stock, truthful = (pairs["edge"][name] for name in ("stock", "truthful"))
    assert stock.diverged > 0
    assert (stock.ghosts, truthful.ghosts) == (stock.diverged, 0)


def test_the_same_seed_gives_the_same_search_twice(pairs: Mapping[str, dict[str, Outcome]]) -> None:
    assert run_pair("edge", seed=7, horizons=6) == pairs["edge"]


class Listener:
    """Writes down what a searcher is told."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self.told: list[tuple[str, str, int, bool]] = []

    def suggest(self, trial_id: str) -> Any:
        return self._searcher.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._searcher.on_trial_result(trial_id, result)
        self.told.append(("result", trial_id, result["step"], result["done"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        self._searcher.on_trial_complete(trial_id, result)
        self.told.append(("complete", trial_id, result["step"], result["done"]))


def test_a_last_result_comes_with_the_end_and_never_by_itself() -> None:
    searcher, study = SEARCHERS["truthful"](0)
    listener = Listener(searcher)
    simulate(listener, study, OBJECTIVES["parallel"], seed=0, horizons=3, marks=(1.0,))
    ended = {trial: step for what, trial, step, _ in listener.told if what == "complete"}
    reported = [(trial, step) for what, trial, step, _ in listener.told if what == "result"]
    assert all(done == (what == "complete") for what, _, _, done in listener.told)
    for trial, last in ended.items():
        assert [step for key, step in reported if key == trial] == list(range(REPORT_EVERY, last, REPORT_EVERY))


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    draws = np.random.default_rng(0)
    stock, truthful = draws.normal(size=20).tolist(), draws.normal(size=20).tolist()
    expected = stats.ttest_rel(stock, truthful).confidence_interval(0.95)
    assert compare(stock, truthful)["interval"] == pytest.approx([expected.low, expected.high])
