"""Searches of the synthetic objectives under Ray's own ASHAScheduler, and what they have found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from truth_objectives import BASELINE, HORIZON, NAMES, NOISE, REPORT_EVERY, Objective, Optimum
from virtual_tune import Curve, Searcher, VirtualTune

from harness.gangs.tune_trial import OBJECTIVE, STEP
from harness.tuning.searcher import TruthfulOptunaSearch

WORKERS = 4
GRACE = 3
REDUCTION = 3


class Box:
    """The search space: three numbers in [0, 1]."""

    name = "box"
    baseline_params: Mapping[str, float] = BASELINE
    ours_params: Mapping[str, float] | None = None

    def suggest(self, trial: Any) -> dict[str, float]:
        return {name: trial.suggest_float(name, 0, 1) for name in NAMES}

    def overrides(self, params: Mapping[str, float]) -> dict[str, float]:
        return dict(params)


class Scored(NamedTuple):
    """What a search has found at some budget. Regrets are of noise-free values at the horizon."""

    trained_regret: float
    """Of the best trial that reached the horizon, by its last report; of the baseline's horizon before there is one."""
    told_regret: float
    """Of the study's best trial: what a user of the study is told."""


class Outcome(NamedTuple):
    """One search."""

    scores: Mapping[float, Scored]
    """By the share of the budget."""
    trials: int
    complete: int
    """That reached the horizon."""
    diverged: int
    false_complete: int
    """COMPLETE in the study without having reached the horizon."""
    ghosts: int
    """RUNNING in the study though they ended."""


def truthful(seed: int) -> tuple[Searcher, optuna.Study]:
    """This project's searcher."""
    searcher = TruthfulOptunaSearch(
        space=Box(),
        resolve=lambda overrides: (overrides, ""),
        storage=optuna.storages.InMemoryStorage(),
        study_name="truth",
        sampler=optuna.samplers.TPESampler(seed=seed),
        checkpoints=Path("/nowhere"),
    )
    return searcher, searcher.study


def stock(seed: int) -> tuple[Searcher, optuna.Study]:
    """Ray's own."""
    searcher = OptunaSearch(
        space=lambda trial: {"params": Box().suggest(trial)},
        metric=OBJECTIVE,
        mode="max",
        sampler=optuna.samplers.TPESampler(seed=seed),
        points_to_evaluate=[dict(BASELINE)],
    )
    return searcher, searcher._ot_study


SEARCHERS = {"truthful": truthful, "stock": stock}


def simulate(
    searcher: Searcher, study: optuna.Study, objective: Objective, seed: int, horizons: float, marks: tuple[float, ...]
) -> Outcome:
    """Search until `horizons` times HORIZON steps were trained; score at the `marks`, shares of that budget."""
    at = objective.place(seed)
    scheduler = ASHAScheduler(
        time_attr=STEP, metric=OBJECTIVE, mode="max", max_t=HORIZON, grace_period=GRACE, reduction_factor=REDUCTION
    )

    def train(number: int, params: Mapping[str, float]) -> Curve:
        draws = np.random.default_rng([seed, 2, number])  # trial k of a seed has the same noise with both searchers
        return lambda step: objective.curve(params, at, step / HORIZON) + draws.normal(0, NOISE)

    tune = VirtualTune(searcher, scheduler, train, horizon=HORIZON, report_every=REPORT_EVERY, gangs=WORKERS)
    scores = dict[float, Scored]()
    for spent in tune.play():
        while spent >= marks[len(scores)] * horizons * HORIZON:
            scores[marks[len(scores)]] = score(tune, study, objective, at)
            if len(scores) == len(marks):
                return count(tune, study, scores)
    raise AssertionError("a search never ends by itself")


def score(tune: VirtualTune, study: optuna.Study, objective: Objective, at: Optimum) -> Scored:
    """Return the regrets as they are now."""

    def regret(params: Mapping[str, float]) -> float:
        value = objective.curve(params, at, 1.0)
        return float(at.value - (0.0 if math.isnan(value) else value))

    best = max(tune.finished(), key=lambda trial: trial.value, default=tune.trials[0])
    told = [trial for trial in study.get_trials(deepcopy=False) if trial.state is TrialState.COMPLETE]
    incumbent = max(told, key=lambda trial: trial.value).params if told else BASELINE
    return Scored(regret(best.params), regret(incumbent))


def count(tune: VirtualTune, study: optuna.Study, scores: Mapping[float, Scored]) -> Outcome:
    """Compare the study with what really happened."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    ended, finished = tune.ended(), tune.finished()
    return Outcome(
        scores=scores,
        trials=len(ended),
        complete=len(finished),
        diverged=sum(math.isnan(trial.value) for trial in ended),
        false_complete=sum(states[trial.number] is TrialState.COMPLETE and trial not in finished for trial in ended),
        ghosts=sum(states[trial.number] is TrialState.RUNNING for trial in ended),
    )
