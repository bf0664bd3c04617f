"""Drives a searcher and Ray's own ASHAScheduler as Tune does, with virtual workers: no Ray, no clock.

What Tune does with a result, in this order: a trial that says it is done stops, else the scheduler decides; a result
that stops the trial reaches the searcher with the end of the trial, any other by itself.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from truth_objectives import BASELINE, HORIZON, NAMES, NOISE, REPORT_EVERY, Objective, Optimum

from harness.gangs.tune_trial import FINISHED, OBJECTIVE, STEP
from harness.tuning.searcher import TruthfulOptunaSearch

WORKERS = 4
GRACE = 3
REDUCTION = 3


class Searcher(Protocol):
    """What both searchers offer."""

    def suggest(self, trial_id: str) -> Any: ...

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None: ...

    def on_trial_complete(self, trial_id: str, result: dict[str, Any]) -> None: ...


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


class _Worker:
    """One trial on its way."""

    def __init__(self, key: str, params: Mapping[str, float], draws: np.random.Generator) -> None:
        self.key, self.params, self.step = key, params, 0
        self._draws = draws
        self.proxy = SimpleNamespace(trial_id=key)
        """All that the scheduler reads of Tune's trial."""

    def report(self, objective: Objective, at: Optimum) -> dict[str, Any]:
        """Train up to the next report."""
        self.step += REPORT_EVERY
        value = objective.curve(self.params, at, self.step / HORIZON) + self._draws.normal(0, NOISE)
        finished = self.step >= HORIZON
        return {
            OBJECTIVE: value,
            STEP: self.step,
            FINISHED: finished,
            "training_iteration": self.step // REPORT_EVERY,
            "done": finished or math.isnan(value),
        }


class _Books:
    """What really happened, whatever the searcher tells."""

    def __init__(self) -> None:
        self.params: dict[str, Mapping[str, float]] = {}
        self.last: dict[str, dict[str, Any]] = {}

    def finished(self) -> list[str]:
        return [key for key, result in self.last.items() if result[FINISHED]]


def simulate(
    searcher: Searcher, study: optuna.Study, objective: Objective, seed: int, horizons: float, marks: tuple[float, ...]
) -> Outcome:
    """Search until `horizons` times HORIZON steps were trained; score at the `marks`, shares of that budget."""
    at = objective.place(seed)
    scheduler = ASHAScheduler(
        time_attr=STEP, metric=OBJECTIVE, mode="max", max_t=HORIZON, grace_period=GRACE, reduction_factor=REDUCTION
    )
    books, scores = _Books(), dict[float, Scored]()
    queue: list[tuple[int, int, _Worker]] = []
    due = [mark * horizons * HORIZON for mark in marks]

    def start(now: int) -> None:
        number = len(books.params)
        key = f"{number:05d}"
        params = searcher.suggest(key)["params"]
        books.params[key] = params
        # Trial k of a seed has the same noise with both searchers.
        worker = _Worker(key, params, np.random.default_rng([seed, 2, number]))
        scheduler.on_trial_add(None, worker.proxy)
        heapq.heappush(queue, (now + REPORT_EVERY, number, worker))

    for _ in range(WORKERS):
        start(0)
    spent = 0
    while len(scores) < len(marks):
        now, number, worker = heapq.heappop(queue)
        result = worker.report(objective, at)
        spent += REPORT_EVERY
        if take(result, worker, searcher, scheduler):
            books.last[worker.key] = result
            start(now)
        else:
            heapq.heappush(queue, (now + REPORT_EVERY, number, worker))
        while len(scores) < len(marks) and spent >= due[len(scores)]:
            scores[marks[len(scores)]] = score(books, study, objective, at)
    return count(books, study, scores)


def take(result: dict[str, Any], worker: _Worker, searcher: Searcher, scheduler: ASHAScheduler) -> bool:
    """Do with a result what Tune does; return whether the trial is over."""
    over = result["done"] or scheduler.on_trial_result(None, worker.proxy, result) == TrialScheduler.STOP
    if not over:
        searcher.on_trial_result(worker.key, result)
        return False
    result["done"] = True
    scheduler.on_trial_complete(None, worker.proxy, result)
    searcher.on_trial_complete(worker.key, result=result)
    return True


def score(books: _Books, study: optuna.Study, objective: Objective, at: Optimum) -> Scored:
    """Return the regrets as they are now."""

    def regret(params: Mapping[str, float]) -> float:
        value = objective.curve(params, at, 1.0)
        return float(at.value - (0.0 if math.isnan(value) else value))

    finished = books.finished()
    best = max(finished, key=lambda key: books.last[key][OBJECTIVE]) if finished else "00000"
    told = [trial for trial in study.get_trials(deepcopy=False) if trial.state is TrialState.COMPLETE]
    incumbent = max(told, key=lambda trial: trial.value).params if told else BASELINE
    return Scored(regret(books.params[best]), regret(incumbent))


def count(books: _Books, study: optuna.Study, scores: Mapping[float, Scored]) -> Outcome:
    """Compare the study with what really happened."""
    states = {f"{trial.number:05d}": trial.state for trial in study.get_trials(deepcopy=False)}
    finished = set(books.finished())
    return Outcome(
        scores=scores,
        trials=len(books.last),
        complete=len(finished),
        diverged=sum(math.isnan(result[OBJECTIVE]) for result in books.last.values()),
        false_complete=sum(states[key] is TrialState.COMPLETE and key not in finished for key in books.last),
        ghosts=sum(states[key] is TrialState.RUNNING for key in books.last),
    )
