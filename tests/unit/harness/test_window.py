"""The window of TPE: nothing changes for a small search, and the good trials of a large one stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.tuning import window
from harness.tuning.window import GOOD, WindowedTpe

SMALL, SLIDE = 60, 10
STATES = (TrialState.COMPLETE, TrialState.PRUNED)
SPACE = {"x": FloatDistribution(0, 1), "kind": CategoricalDistribution(["a", "b"])}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "WINDOW", SMALL)
    monkeypatch.setattr(window, "SLIDE", SLIDE)


def ended(count: int, seed: int = 0) -> list[FrozenTrial]:
    draws = np.random.default_rng(seed)
    return [
        create_trial(
            params={"x": float(draws.random()), "kind": str(draws.choice(["a", "b"]))}, distributions=SPACE,
            value=round(float(draws.random()), 2), state=STATES[int(draws.integers(2))],
            intermediate_values={int(draws.integers(1, 9)): round(float(draws.random()), 2)},
        )
        for _ in range(count)
    ]  # fmt: skip


def study_of(sampler: optuna.samplers.BaseSampler, trials: list[FrozenTrial], running: int = 0) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.add_trials(trials)
    for _ in range(running):
        study.enqueue_trial({"x": 0.5, "kind": "a"})
    return study


def draw(study: optuna.Study) -> dict[str, Any]:
    trial = study.ask()
    return {"x": trial.suggest_float("x", 0, 1), "kind": trial.suggest_categorical("kind", ["a", "b"])}


@pytest.mark.parametrize("count", [0, 9, 30, SMALL, SMALL + SLIDE - 1])
def test_a_small_search_draws_what_optunas_own_tpe_draws(count: int) -> None:
    ours, theirs = (study_of(cls(seed=3), ended(count)) for cls in (WindowedTpe, optuna.samplers.TPESampler))
    assert [draw(ours) for _ in range(5)] == [draw(theirs) for _ in range(5)]


@pytest.mark.parametrize("count", [SMALL + SLIDE, 105, 400])
@pytest.mark.parametrize("seed", range(3))
def test_the_good_trials_are_the_best_of_all_and_the_others_the_newest(count: int, seed: int) -> None:
    study, sampler = study_of(optuna.samplers.RandomSampler(), ended(count, seed)), WindowedTpe(0)
    trials = study.get_trials()
    seen = sampler.seen(study, trials)
    assert [trial.number for trial in seen] == sorted({trial.number for trial in seen})
    assert _split_trials(study, seen, GOOD)[0] == _split_trials(study, trials, GOOD)[0]
    newest = trials[-SMALL:]
    assert {trial.number for trial in newest} <= {trial.number for trial in seen}
    assert len(seen) < SMALL + SLIDE + GOOD


def test_a_trial_that_runs_since_before_the_window_is_seen() -> None:
    study = study_of(optuna.samplers.RandomSampler(), [], running=1)
    study.ask()
    study.add_trials(ended(200))
    assert TrialState.RUNNING in {trial.state for trial in WindowedTpe(0).seen(study, study.get_trials())}


def test_a_window_that_moves_draws_as_one_that_begins_there() -> None:
    """What the sampler keeps between two draws is but a shortcut."""
    trials = ended(300)
    kept = WindowedTpe(0)
    for count in range(100, 301, 7):
        study = study_of(optuna.samplers.RandomSampler(), trials[:count])
        everything = study.get_trials()
        assert kept.seen(study, everything) == WindowedTpe(0).seen(study, everything)


def test_a_large_search_draws_within_the_space() -> None:
    study = study_of(WindowedTpe(0), ended(200))
    for _ in range(3):
        params = draw(study)
        assert 0 <= params["x"] <= 1
        assert params["kind"] in ("a", "b")
