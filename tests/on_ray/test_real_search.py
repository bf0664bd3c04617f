"""One small search of the real trainer through the command line, and its books compared with each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
import torch
from mlflow import MlflowClient

from harness.ledger import read_times
from harness.start import DRIVER, GANG, TOLD
from harness.tuning.study import journal
from search_spaces import load_space
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.overrides import apply_overrides, parse_settings
from trainers.presets import load_preset

SETTINGS = (
    "data.labelled=16",
    "data.unlabelled=32",
    "data.dev=16",
    "model.width=8",
    "model.representation_dim=16",
    "loss.queries=16",
    "loss.negatives=16",
    "schedule.steps=30",
    "schedule.evaluate_every=5",
)
TRIALS = 6


class Search(NamedTuple):
    """What the command left."""

    folder: Path
    result: dict[str, Any]
    """What `--json` printed."""
    lines: str
    """What was for people."""
    began: float
    """When the command was called, seconds since 1970."""


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Run `s4 tune` in an empty folder, in a process of its own, as a user would."""
    folder = tmp_path_factory.mktemp("search")
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    line = ["tune", "--trials", str(TRIALS), "--grace-steps", "10", "--name", "small", "--seed", "3", "--json"]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli.main", *line, "--profile-start", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Search(folder, json.loads(done.stdout), done.stderr, began)


def runs_of(search: Search) -> list[Any]:
    client = MlflowClient(f"sqlite:///{search.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("s4")
    return list(client.search_runs([experiment.experiment_id]))


def test_the_table_optuna_and_mlflow_agree_on_every_trial(search: Search) -> None:
    table = {row["number"]: row["state"] for row in search.result["rows"]}
    study = optuna.load_study(study_name="small", storage=journal(search.folder / "runs" / "small" / "optuna.journal"))
    in_optuna = {trial.number: trial.state.name for trial in study.trials}
    children = [run for run in runs_of(search) if run.data.tags["s4.kind"] == "trial"]
    in_mlflow = {int(run.data.tags["s4.trial"]): run.info.status for run in children}
    assert sorted(table) == list(range(TRIALS))
    assert in_optuna == table
    assert in_mlflow == {number: {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[state] for number, state in table.items()}


def test_mlflow_has_one_finished_parent_and_each_trial_below_it_once(search: Search) -> None:
    parents = [run for run in runs_of(search) if run.data.tags["s4.kind"] == "search"]
    assert [run.info.status for run in parents] == ["FINISHED"]
    below = [run for run in runs_of(search) if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(below) == TRIALS


def test_trial_0_is_the_published_baseline(search: Search) -> None:
    first = next(row for row in search.result["rows"] if row["number"] == 0)
    assert first["values"] == load_space("css_quick").baseline


def test_a_trial_in_a_gang_gives_the_numbers_of_a_run_without_ray(search: Search) -> None:
    row = max(search.result["rows"], key=lambda row: (row["state"] == "COMPLETE", row["number"]))
    config = apply_overrides(load_preset("digits_css"), parse_settings(SETTINGS) | row["values"])
    reports: list[dict[str, float]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(config, LocalRun(listener=lambda metrics: reports.append(dict(metrics))))
    finally:
        torch.set_num_threads(threads)
    assert row["config_hash"] == config.hash
    client = MlflowClient(f"sqlite:///{search.folder}/mlflow.db")
    run = next(run for run in runs_of(search) if run.data.tags.get("s4.trial") == str(row["number"]))
    for name in ("dev/miou", "train/loss/total", "train/loss/contrast"):
        history = [point.value for point in client.get_metric_history(run.info.run_id, name)]
        assert history == [report[name] for report in reports]


def test_the_parent_shows_what_the_node_was_busy_with(search: Search) -> None:
    [parent] = [run for run in runs_of(search) if run.data.tags["s4.kind"] == "search"]
    used = [value for name, value in parent.data.metrics.items() if name.endswith("/cpu_utilization_percentage")]
    assert [0 <= value <= 100 for value in used] == [True]


def test_the_stages_of_its_start_are_all_there_in_order_and_sum_to_the_span(search: Search) -> None:
    [start] = read_times(search.folder / "runs" / "small" / "trials.jsonl").starts.values()
    stages, [first, *_] = start.stages(), start.by_report
    stamps = start.shared | start.gangs[first]
    ordered = [stamps[name] for name in (*DRIVER, *GANG, *TOLD) if name != "process"]  # which may have been ready
    assert [stage.name for stage in stages] == [*DRIVER, *GANG, *TOLD]
    assert ordered == sorted(ordered)
    assert sum(stage.took_s for stage in stages) == pytest.approx(stamps["told"] - search.began, abs=1.0)
    assert f"From the command to the first report in {start.took_s:.1f} s." in search.lines
