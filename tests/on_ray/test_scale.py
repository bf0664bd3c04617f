"""One small measurement of scaling of the real trainer through the command line, its bytes and its books; and a
simulated search against a real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from analytic import Analytic, Script, plan_of
from mlflow import MlflowClient
from processes import left_of_a_search

from harness.run_folder import read_run
from harness.scaling.forecast import Forecast, SearchTimes, forecast_search, read_times
from harness.scaling.simulate import Faults

SETTINGS = ("data.labelled=16", "data.unlabelled=32", "data.dev=16", "model.width=8", "model.representation_dim=16",
            "loss.queries=16", "loss.negatives=16")  # fmt: skip
K, D = 11, 16

pytestmark = pytest.mark.timeout(600)  # the first test waits for all of it


@dataclass
class Measured:
    """What the command left."""

    folder: Path
    printed: dict[str, Any]

    @property
    def point(self) -> dict[str, Any]:
        """That of two workers."""
        return self.printed["points"][1]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("scale")
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    lengths = ["--steps", "3", "--blocks", "2", "--warmup", "2", "--repeats", "1"]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    line = ["scale", "--workers", "1,2", "--name", "small", "--json", *lengths, *settings]
    done = subprocess.run([sys.executable, "-m", "harness.cli.main", *line], cwd=folder, env=environment,
                          capture_output=True, text=True, timeout=500)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Measured(folder, json.loads(done.stdout))


def test_a_point_for_each_number_of_workers(measured: Measured) -> None:
    assert [point["workers"] for point in measured.printed["points"]] == [1, 2]
    assert measured.printed["points"][0]["efficiency"] == 1
    assert measured.point["efficiency"] == pytest.approx(
        measured.point["images_per_s"] / 2 / measured.printed["points"][0]["images_per_s"]
    )


def test_a_step_sends_gradients_and_k_times_d_plus_1_numbers_and_sums_that_have_names(measured: Measured) -> None:
    expected = measured.point["bytes_expected"]
    assert expected["prototypes"] == 4 * K * (D + 1)
    assert expected["sums"] == 4 * (2 + K + 1)  # divisors of L_s and L_u; hard pixels by class, valid pixels
    assert measured.point["bytes"]["gradients"] == expected["gradients"]
    assert measured.point["bytes"]["message/0"] == 4 * (K * (D + 1) + 2)
    assert measured.point["bytes"]["message/1"] == 4 * (K + 1)
    assert measured.point["bytes"]["message/2"] == expected["statistics"]
    assert measured.point["bytes_per_step"] == sum(expected.values())
    assert measured.point["bytes_unexplained"] == 0


def test_a_worker_alone_sends_nothing(measured: Measured) -> None:
    alone = measured.printed["points"][0]
    assert (alone["bytes_per_step"], alone["collectives"], alone["links"]) == (0, 0, {})


def test_the_parts_of_a_step_are_no_longer_than_the_step(measured: Measured) -> None:
    for point in measured.printed["points"]:
        assert point["communication_s"] + point["input_s"] < point["step_s"]
        assert 0 <= point["transfer_s"] <= point["communication_s"]
    assert measured.point["transfer_s"] > 0


def test_predictions_are_marked(measured: Measured) -> None:
    assert [row["workers"] for row in measured.printed["predictions"]] == [8, 64, 512]
    assert all(row["prediction"] for row in measured.printed["predictions"])
    assert measured.printed["model"]["errors"].keys() == {"1", "2"}


def test_mlflow_has_a_parent_with_the_curve_and_a_child_a_point(measured: Measured) -> None:
    client = MlflowClient(f"sqlite:///{measured.folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("s4").experiment_id])
    [parent] = [run for run in runs if run.data.tags["s4.kind"] == "scale"]
    points = {run.data.tags["s4.workers"]: run for run in runs if run.data.tags["s4.kind"] == "point"}
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert points["2"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert points["2"].data.metrics["images_per_s"] == measured.point["images_per_s"]
    assert points["2"].data.metrics["efficiency"] == measured.point["efficiency"]
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"scale.png", "scale.csv", "scale.json", "scale.md"} <= artifacts


def test_the_folder_holds_tables_and_curve_and_nothing_of_the_gangs(measured: Measured) -> None:
    files = {path.name for path in (measured.folder / "runs" / "small").iterdir()}
    assert {"run.yaml", "scale.json", "scale.csv", "scale.md", "scale.png"} <= files
    assert "gangs" not in files
    info = read_run(measured.folder / "runs" / "small", "scale")
    assert (info.preset, info.metric, info.request["workers"]) == ("digits_css", "images_per_s", [1, 2])


@pytest.fixture(scope="module")
def search(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> SearchTimes:
    """A real search of the stand-in: two gangs, ASHA, trials of 0.8 to 2.5 seconds."""
    storage = tmp_path_factory.mktemp("simulated")
    plan = plan_of(storage / "real", trials=12, grace_steps=3, gangs=2)
    qualities = [0.9, 0.2, 0.8, 0.3, 0.95, 0.1, 0.5, 0.4, 0.85, 0.6, 0.05, 0.7]
    plan.run(Analytic(storage, step_s=0.25), Script([{"quality": quality} for quality in qualities]))
    return read_times(plan.folder)


def forecast(times: SearchTimes) -> Forecast:
    return forecast_search(times, 1000, [2], [0.0], Faults())


def test_the_simulator_repeats_a_real_search(search: SearchTimes) -> None:
    assert (search.gangs, len(search.trials)) == (2, 12)
    # What it does not know is the pause between two trials of a gang: milliseconds here, more on a busy machine.
    assert forecast(search).replayed_s / search.elapsed_s == pytest.approx(1, abs=0.25)


def test_trials_drawn_from_a_search_take_about_as_long(search: SearchTimes) -> None:
    found = forecast(search).resampled
    assert 0.6 < found.hours * 3600 / search.elapsed_s < 1.6  # 12 trials of two lengths, drawn at random


def test_no_process_is_left(search: SearchTimes) -> None:
    assert left_of_a_search() == []
