"""One small confirmation of the real trainer through the command line, run twice, and its books."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mlflow import MlflowClient

from harness.ablation.request import Run, read_request
from harness.ablation.results import read_results
from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.reporting.results import Results, Row, write_results
from harness.run_folder import RunInfo, write_run
from harness.tuning.config import SearchConfig
from search_spaces import load_space
from trainers.data.splits import open_val
from trainers.evaluate import evaluate
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.overrides import parse_settings

SETTINGS = parse_settings(
    (
        "data.labelled=16",
        "data.unlabelled=32",
        "data.dev=16",
        "data.val=16",
        "model.width=8",
        "model.representation_dim=16",
        "loss.queries=16",
        "loss.negatives=16",
        "schedule.steps=10",
        "schedule.evaluate_every=5",
    )
)
SEEDS = (3, 4)
LINE = ["confirm", "small", "--top", "2", "--seeds", "3,4", "--vary-data", "--json"]

pytestmark = pytest.mark.timeout(600)  # the first test waits for all of it


class Confirmed(NamedTuple):
    """What the command left."""

    folder: Path
    first: dict[str, Any]
    """What `--json` printed."""
    again: dict[str, Any]
    """What the same command printed the second time."""
    again_said: str
    """What it told people the second time."""


def write_search(folder: Path) -> None:
    """Write what a search leaves: two trials that differ from the baseline."""
    experiment, space = CssExperiment.of("digits_css", SETTINGS), load_space("css_quick")
    rows = []
    for number, (best, lambda_u) in enumerate([(0.1, space.baseline["loss.lambda_u"]), (0.2, 0.5), (0.3, 2.0)]):
        values = {**space.baseline, "loss.lambda_u": lambda_u}
        config_hash = experiment.resolve(values)[1]
        rows.append(Row(number, "COMPLETE", best, 10, 10, values, config_hash, None, None, None))
    results = Results("small", "search", "digits_css", space.name, "dev/miou", 10, 1.0, "uri", space.paths, rows[::-1])
    write_results(folder, results)
    asked = {"options": SearchConfig.of(trials=3).model_dump(mode="json"), "space": space.text}
    write_run(folder, RunInfo.of("search", experiment, "dev/miou", asked))


def s4(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-m", "harness.cli.main", *LINE],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Confirmed:
    """Confirm in an empty folder, in a process of its own, as a user would; and once more, here."""
    folder = tmp_path_factory.mktemp("confirmed")
    write_search(folder / "runs" / "small")
    first = s4(folder)
    assert first.returncode == 0, first.stderr
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert run(LINE) == 0
    return Confirmed(folder, json.loads(first.stdout), json.loads(out.getvalue()), err.getvalue())


def runs_of(confirmed: Confirmed, kind: str) -> list[Any]:
    client = MlflowClient(f"sqlite:///{confirmed.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("s4")
    return [run for run in client.search_runs([experiment.experiment_id]) if run.data.tags["s4.kind"] == kind]


def test_every_configuration_was_trained_with_every_seed(confirmed: Confirmed) -> None:
    runs = [(run["variant"], run["seed"], run["state"]) for run in confirmed.first["outcomes"]]
    variants = ("baseline", "trial 2", "trial 1")
    assert runs == [(variant, seed, "COMPLETE") for seed in SEEDS for variant in variants]


def test_its_numbers_are_those_of_a_run_without_ray(confirmed: Confirmed) -> None:
    request = read_request(confirmed.folder / "runs" / "small-confirm")
    chosen = Run(confirmed.first["chosen"], 4)
    config = CssExperiment.of("digits_css", SETTINGS).configure(request.overrides(chosen))
    assert (config.seed, config.data.seed) == (4, 4)
    reports: list[dict[str, float]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        local = LocalRun(listener=lambda metrics: reports.append(dict(metrics)))
        state = train(config, local)
        val = evaluate(state.teacher, open_val(config.data), config, local, "val")
    finally:
        torch.set_num_threads(threads)
    found = read_results(confirmed.folder / "runs" / "small-confirm")
    seen = found.scores(chosen.variant, "dev/miou")[4], found.scores(chosen.variant, "val/miou")[4]
    assert seen == (reports[-1]["dev/miou"], val["val/miou"])


def test_only_the_chosen_one_and_the_baseline_saw_the_validation_images(confirmed: Confirmed) -> None:
    saw = {run["variant"] for run in confirmed.first["outcomes"] if "val/miou" in run["metrics"]}
    assert saw == {"baseline", confirmed.first["chosen"]}
    in_mlflow = [run for run in runs_of(confirmed, "trial") if "val/miou" in run.data.metrics]
    assert len(in_mlflow) == len(saw) * len(SEEDS)


def test_mlflow_has_a_finished_parent_and_a_finished_child_a_run(confirmed: Confirmed) -> None:
    (parent,) = runs_of(confirmed, "confirm")
    children = runs_of(confirmed, "trial")
    assert [run.info.status for run in (parent, *children)] == ["FINISHED"] * 7
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.data.tags["s4.confirms"] == "small"


def test_the_second_time_it_is_only_shown(confirmed: Confirmed) -> None:
    assert confirmed.again == confirmed.first
    assert "COMPLETE" not in confirmed.again_said
