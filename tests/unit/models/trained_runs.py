"""A training `first`, a search `search-001` and what confirms it, trained here without Ray, with their records."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference.tiny import tiny_config

from harness.experiment import CssExperiment
from harness.ledger import LEDGER, Ledger
from harness.run_folder import LATEST, RunInfo, checkpoint_folder, write_run
from harness.tracking.recorder import MlflowRecorder
from harness.trials import Trial, TrialState
from trainers.config import TrainConfig
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.overrides import apply_overrides

SPACE = """\
name: rates
source: a test
baseline: {optimizer.lr: 0.1}
parameters:
  optimizer.lr: {float: {low: 0.001, high: 0.2, log: true}}
"""
RATES = {0: 0.1, 1: 0.02, 2: 0.001}
"""Of the search's trials; trial 2 was pruned and keeps nothing."""


@dataclass(frozen=True)
class TrainedRuns:
    """Where they are."""

    storage: Path
    uri: str
    config: TrainConfig
    """Of `first`, and base of the search."""
    reports: dict[str, dict[str, float]]
    """The last report of `first`, `search-001/0` and `search-001/1`."""

    @property
    def best(self) -> int:
        """The better complete trial of the search."""
        return max((0, 1), key=lambda trial: self.reports[f"search-001/{trial}"]["dev/miou"])

    def options(self) -> list[str]:
        return ["--storage", str(self.storage), "--tracking-uri", self.uri]


def train_some(root: Path, uri: str) -> TrainedRuns:
    storage = root / "runs"
    config = tiny_config({"schedule.steps": 6, "schedule.evaluate_every": 3})
    reports: dict[str, dict[str, float]] = {}
    experiment = CssExperiment(config, "digits_css")
    write_run(storage / "first", RunInfo.of("train", experiment, "dev/miou", {}))
    with recorder(uri, "train", storage / "first") as record:
        reports["first"] = trained_trial(config, {}, 0, storage / "first", [record])
    search = storage / "search-001"
    write_run(search, RunInfo.of("search", experiment, "dev/miou", {"options": {}, "space": SPACE}))
    ledger = Ledger(search / LEDGER, "dev/miou")
    with recorder(uri, "search", search) as record:
        for number, rate in RATES.items():
            folder, overrides = checkpoint_folder(search / "trials", number), {"optimizer.lr": rate}
            reports[f"search-001/{number}"] = trained_trial(config, overrides, number, folder, [ledger, record])
    ledger.close()
    shutil.rmtree(checkpoint_folder(search / "trials", 2))
    confirm(search, config)
    return TrainedRuns(storage, uri, config, reports)


def recorder(uri: str, kind: Any, folder: Path) -> MlflowRecorder:
    return MlflowRecorder(uri, "s4", kind, folder.name, {"s4.folder": str(folder)}, folder / "outbox.jsonl")


def trained_trial(
    base: TrainConfig, overrides: Mapping[str, float], number: int, folder: Path, watchers: list[Any]
) -> dict[str, float]:
    """Train a trial, tell the watchers, and return its last report."""
    config = apply_overrides(base, overrides)
    trial = Trial(number, {}, overrides, config.hash, config.model_dump(mode="json"))
    for watcher in watchers:
        watcher.on_start(trial)

    def listen(metrics: Mapping[str, float]) -> None:
        trial.take_in(metrics, metrics["dev/miou"])
        for watcher in watchers:
            watcher.on_report(trial)

    train(config, LocalRun(folder, listener=listen))
    trial.state = TrialState.PRUNED if number == 2 else TrialState.COMPLETE
    for watcher in watchers:
        watcher.on_end(trial)
    return dict(trial.metrics)


def confirm(search: Path, config: TrainConfig) -> None:
    """Leave a confirmation whose run 0 is trial 0 of the search again."""
    folder = search.with_name("search-001-confirm")
    overrides = {"optimizer.lr": RATES[0], "seed": config.seed}
    trial = Trial(0, {}, overrides, apply_overrides(config, overrides).hash)
    ledger = Ledger(folder / LEDGER, "dev/miou")
    ledger.on_start(trial)
    ledger.close()
    write_run(folder, RunInfo.of("confirm", CssExperiment(config, "digits_css"), "dev/miou", {"confirms": search.name}))
    target = checkpoint_folder(folder / "trials", 0)
    target.mkdir(parents=True)
    shutil.copy(checkpoint_folder(search / "trials", 0) / LATEST, target / LATEST)
