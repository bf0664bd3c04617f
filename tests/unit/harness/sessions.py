"""Sessions of a search without Ray, for tests of what its ledger and its study say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import optuna

from harness.gangs.messages import Report
from harness.gangs.tune_trial import as_result
from harness.ledger import LEDGER, Ledger
from harness.trials import Value
from harness.tuning.callback import TuneCallback
from harness.tuning.joining import join
from harness.tuning.objectives import Objective
from harness.tuning.searcher import TruthfulOptunaSearch
from harness.tuning.shared import Shared
from harness.tuning.study import JOURNAL, journal, reconcile

MIOU = Objective("dev/miou", "max")
TRIALS, GANGS, HORIZON, EVERY = 6, 2, 30, 10
SEARCH = "s"


class Line:
    """A search space of one number."""

    name = "line"
    baseline_params: Mapping[str, Value] = {"x": 0.25}  # read only
    ours_params: Mapping[str, Value] | None = None

    def suggest(self, trial: Any) -> dict[str, Value]:
        return {"x": trial.suggest_float("x", 0, 1)}

    def overrides(self, params: Mapping[str, Value]) -> dict[str, Value]:
        return dict(params)


def resolve(overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
    return overrides, f"hash of {overrides['x']}"


class Session:
    """A session of a search on two gangs, whose searcher and callback are called in Ray Tune's order."""

    def __init__(self, folder: Path, shared: Shared | None = None, trials: int = TRIALS) -> None:
        history = reconcile(folder, SEARCH, MIOU, shared=shared)
        study = join(shared, Line(), [MIOU]) if shared is not None else None
        self.left = trials if study else trials - sum(trial.state.over for trial in history.trials.values())
        self.ledger = Ledger(folder / LEDGER, MIOU.metric)
        sampler = optuna.samplers.RandomSampler(seed=len(history.trials))
        storage = study._storage if study else journal(folder / JOURNAL)
        self.searcher = TruthfulOptunaSearch(
            Line(), resolve, storage, SEARCH, sampler, folder / "trials", history.trials, shared=shared, limit=trials
        )
        self.callback = TuneCallback(MagicMock(), resolve, [self.ledger], lambda: None, history.trials)
        self.live: list[Any] = []

    def run(self, turns: int = 100) -> None:
        """Go on to the end of the search, or through a number of turns, after which the session is interrupted."""
        while turns and (self.left or self.live):
            turns -= 1
            self.turn()
        self.close()

    def turn(self) -> None:
        """Let every trial come to its next report, and fill the gangs."""
        for trial in [trial for trial in self.live if trial.started]:
            self.report(trial)
        for trial in [trial for trial in self.live if not trial.started]:
            self.callback.on_trial_start(0, [], trial)
            trial.started = True
        while self.left and len(self.live) < GANGS:
            key = f"key-{self.left}"
            config = self.searcher.suggest(key)
            if isinstance(config, str):
                self.left = 0
                break
            step = max(config["job"].last_step, 0)
            self.live.append(SimpleNamespace(trial_id=key, config=config, step=step, started=False))
            self.left -= 1

    def close(self) -> None:
        """End the session; what runs is interrupted."""
        self.searcher.interrupt_unfinished()
        self.callback.interrupt_unfinished("the session ends")
        self.ledger.spent(1.0, 1.0)
        self.ledger.close()

    def report(self, trial: Any) -> None:
        """Let a trial reach its next report: number 1 is pruned at its second, number 2 fails there."""
        trial.step = min(trial.step + EVERY, HORIZON)
        number, at_second = trial.config["number"], trial.step == 2 * EVERY
        value = trial.config["params"]["x"] * trial.step
        metrics = {"step": float(trial.step), "finished": float(trial.step == HORIZON), MIOU.metric: value}
        result = as_result(Report(metrics, "it broke" if at_second and number == 2 else None), [MIOU.metric])
        over = result["done"] or (at_second and number == 1)
        if not over:
            self.searcher.on_trial_result(trial.trial_id, result)
        self.callback.on_trial_result(0, [], trial, result)
        if over:
            trial.last_result = result
            self.searcher.on_trial_complete(trial.trial_id, result)
            self.callback.on_trial_complete(0, [], trial)
            self.live.remove(trial)
