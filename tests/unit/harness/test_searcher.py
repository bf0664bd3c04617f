from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from harness.trials import Trial, TrialState, Value
from harness.tuning.searcher import TruthfulOptunaSearch, outcome
from harness.tuning.study import journal
from trainers.errors import UsageError


class Toy:
    """One parameter, and a second one where the first is large."""

    name = "toy"
    baseline_params: Mapping[str, Value] = {"x": 0.25}  # read only
    ours_params: Mapping[str, Value] | None = None

    def suggest(self, trial: Any) -> dict[str, Value]:
        params = {"x": trial.suggest_float("x", 0, 1)}
        if params["x"] > 0.5:
            params["y"] = trial.suggest_int("y", 1, 3)
        return params

    def overrides(self, params: Mapping[str, Value]) -> dict[str, Value]:
        return {f"loss.{name}": value for name, value in params.items()}


def resolve(overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
    return overrides, f"hash of {dict(overrides)}"


@pytest.fixture
def storage(tmp_path: Path) -> optuna.storages.JournalStorage:
    return journal(tmp_path / "optuna.journal")


def search(storage: optuna.storages.BaseStorage, resolve: Any = resolve) -> TruthfulOptunaSearch:
    return TruthfulOptunaSearch(
        Toy(), resolve, storage, "study", optuna.samplers.TPESampler(seed=0), Path("/checkpoints")
    )


def report(value: float, step: int, finished: bool = False) -> dict[str, Any]:
    return {"objective": value, "step": step, "finished": finished, "training_iteration": 77}


def test_trial_0_is_the_baseline(storage: optuna.storages.JournalStorage) -> None:
    assert search(storage).suggest("t")["params"] == {"x": 0.25}


def test_trial_1_is_the_second_configuration_of_the_space(
    storage: optuna.storages.JournalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Toy, "ours_params", {"x": 0.75, "y": 2})
    searcher = search(storage)
    assert [searcher.suggest(name)["params"] for name in ("t", "u")] == [{"x": 0.25}, {"x": 0.75, "y": 2}]


def test_a_trial_has_its_overrides_hash_and_folder(storage: optuna.storages.JournalStorage) -> None:
    job = search(storage).suggest("t")["job"]
    assert job.overrides == {"loss.x": 0.25}
    assert job.config_hash == "hash of {'loss.x': 0.25}"
    assert job.checkpoint_dir == "/checkpoints/00000"


def test_a_config_that_cannot_be_resolved_has_no_hash(storage: optuna.storages.JournalStorage) -> None:
    def refuse(overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
        raise UsageError("no")

    assert search(storage, refuse).suggest("t")["job"].config_hash == ""


def test_the_space_is_define_by_run(storage: optuna.storages.JournalStorage) -> None:
    searcher = search(storage)
    drawn = [searcher.suggest(str(number))["params"] for number in range(20)]
    assert {"y" in params for params in drawn if params["x"] > 0.5} == {True}
    assert {"y" in params for params in drawn if params["x"] <= 0.5} == {False}


def test_a_finished_trial_is_complete(storage: optuna.storages.JournalStorage) -> None:
    searcher = search(storage)
    searcher.suggest("t")
    searcher.on_trial_complete("t", report(0.6, 90, finished=True))
    (trial,) = searcher.study.trials
    assert (trial.state, trial.value) == (OptunaState.COMPLETE, 0.6)


def test_a_stopped_trial_is_pruned_with_all_its_values_at_their_steps(storage: optuna.storages.JournalStorage) -> None:
    searcher = search(storage)
    searcher.suggest("t")
    searcher.on_trial_result("t", report(0.1, 10))
    searcher.on_trial_result("t", report(0.2, 20))
    searcher.on_trial_complete("t", report(0.15, 30))
    (trial,) = searcher.study.trials
    assert trial.state is OptunaState.PRUNED
    assert trial.intermediate_values == {10: 0.1, 20: 0.2, 30: 0.15}


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (None, True),
        (report(0.1, 10), True),
        (report(math.nan, 10), False),
        ({"error": "broken", "finished": False}, False),
    ],
)
def test_everything_else_is_a_failure(
    storage: optuna.storages.JournalStorage, result: dict[str, Any] | None, error: bool
) -> None:
    searcher = search(storage)
    searcher.suggest("t")
    searcher.on_trial_complete("t", result, error)
    assert searcher.study.trials[0].state is OptunaState.FAIL


def test_trials_that_an_earlier_driver_left_running_wait_to_go_on(storage: optuna.storages.JournalStorage) -> None:
    search(storage).suggest("t")
    assert search(storage).study.trials[0].state is OptunaState.WAITING


def test_a_trial_that_was_left_running_is_drawn_again_before_any_other(
    storage: optuna.storages.JournalStorage,
) -> None:
    first = search(storage)
    first.suggest("baseline")
    first.on_trial_complete("baseline", report(0.1, 9, finished=True))
    drawn = first.suggest("t")
    again = search(storage).suggest("u")
    assert (again["number"], again["params"]) == (1, drawn["params"])


def test_a_continued_study_does_not_repeat_a_finished_baseline(storage: optuna.storages.JournalStorage) -> None:
    first = search(storage)
    first.suggest("t")
    first.on_trial_complete("t", report(0.1, 9, finished=True))
    assert search(storage).suggest("u")["number"] == 1


def test_a_trial_that_goes_on_says_which_step_was_reported_last(storage: optuna.storages.JournalStorage) -> None:
    earlier = {0: Trial(0, {}, {}, metrics={"step": 7.0})}
    searcher = TruthfulOptunaSearch(
        Toy(), resolve, storage, "study", optuna.samplers.TPESampler(seed=0), Path("/checkpoints"), earlier
    )
    assert searcher.suggest("t")["job"].last_step == 7


def test_a_search_that_is_cut_short_leaves_no_trial_running(storage: optuna.storages.JournalStorage) -> None:
    searcher = search(storage)
    searcher.suggest("t")
    searcher.interrupt_unfinished()
    assert searcher.study.trials[0].state is OptunaState.WAITING


def test_an_interrupted_trial_waits(storage: optuna.storages.JournalStorage) -> None:
    searcher = search(storage)
    searcher.suggest("t")
    searcher.on_trial_complete("t", {"error": "interrupted", "interrupted": True, "finished": False})
    assert searcher.study.trials[0].state is OptunaState.WAITING


def test_a_trial_that_is_stopped_while_it_pauses_is_pruned(storage: optuna.storages.JournalStorage) -> None:
    searcher = search(storage)
    searcher.suggest("t")
    searcher.on_trial_result("t", report(0.2, 3))
    searcher.on_trial_complete("t")
    assert searcher.study.trials[0].state is OptunaState.PRUNED


def test_a_finished_searcher_draws_no_more(storage: optuna.storages.JournalStorage) -> None:
    searcher = search(storage)
    searcher.finish()
    assert searcher.suggest("t") == "FINISHED"


def test_the_same_seed_draws_the_same_trials(tmp_path: Path) -> None:
    searchers = [search(journal(tmp_path / name)) for name in "ab"]
    first, second = ([searcher.suggest(str(number))["params"] for number in range(5)] for searcher in searchers)
    assert first == second


def test_an_outcome_is_one_of_four() -> None:
    outcomes = [outcome(report(0.1, 9, finished=True)), outcome(report(0.1, 3)), outcome(None), outcome(None, True)]
    assert outcomes == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.INTERRUPTED, TrialState.FAIL]
