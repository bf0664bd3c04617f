"""The trainer of harness/README.md, taken from there: searched, confirmed, ablated, interrupted and resumed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

README = Path(__file__).parents[2] / "harness" / "README.md"
PROGRAM = """
import json
from pathlib import Path

import ray

import harness
from moons import Moons


class Ctrl_C:
    # Presses it at step 100, once.
    def on_start(self, trial):
        self.pressed = False

    def on_report(self, trial):
        if trial.step >= 100 and not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt

    def on_end(self, trial):
        pass


ray.init(num_cpus=2, include_dashboard=False)
harness.search(Moons(), space="moons.yaml", trials=4, name="moons", quiet=True)
searched = harness.search(Moons(), trials=6, name="moons", resume=True, quiet=True)
confirmed = harness.confirm("moons", experiment=Moons(), top=1, seeds=(0, 1), quiet=True)
ablated = harness.ablate(
    Moons(), plan={"plain": {}, "momentum": {"momentum": 0.9}}, seeds=(0, 1), name="ablation", quiet=True
)
whole = harness.train(Moons(), name="whole", quiet=True)
try:
    harness.train(Moons(), name="interrupted", observers=[Ctrl_C()], quiet=True)
except KeyboardInterrupt:
    state = json.loads(Path("runs/interrupted/results.json").read_text())["rows"][0]["state"]
resumed = harness.train(Moons(), name="interrupted", resume=True, quiet=True)
Path("left.json").write_text(json.dumps({
    "searched": searched.to_dict(), "confirmed": confirmed.to_dict(), "ablated": ablated.to_dict(),
    "whole": whole.to_dict(), "state": state, "resumed": resumed.to_dict(),
}))
"""

pytestmark = pytest.mark.timeout(600)  # the first test waits for all of it


def block(language: str) -> str:
    """Return the one block of code of this language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moons")
    for name, text in (("moons.py", block("python")), ("moons.yaml", block("yaml")), ("program.py", PROGRAM)):
        (folder / name).write_text(text, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def left(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "left.json").read_text(encoding="utf-8"))


def test_a_search_of_it_goes_on_with_more_trials(left: dict[str, Any]) -> None:
    rows = {row["number"]: row for row in left["searched"]["rows"]}
    assert sorted(rows) == list(range(6))
    assert rows[0]["values"] == {"lr": 0.03, "momentum": 0.0, "width": 8}
    assert {row["state"] for row in rows.values()} <= {"COMPLETE", "PRUNED"}
    assert left["searched"]["rows"][0]["best"] >= rows[0]["best"] > 0.6


def test_its_best_trial_is_confirmed_on_its_own_metric(left: dict[str, Any]) -> None:
    confirmed = left["confirmed"]
    assert confirmed["chosen"] == next(row["variant"] for row in confirmed["dev"] if row["variant"] != "baseline")
    assert [run["state"] for run in confirmed["outcomes"]] == ["COMPLETE"] * 4


def test_its_ablation_is_judged_by_its_own_metric(left: dict[str, Any]) -> None:
    ablated = left["ablated"]
    assert (ablated["metric"], ablated["winner"]) == ("dev/accuracy", "momentum")


def test_an_interrupted_training_ends_as_one_that_was_left_alone(left: dict[str, Any]) -> None:
    assert left["state"] == "INTERRUPTED"
    [resumed], [whole] = left["resumed"]["rows"], left["whole"]["rows"]
    assert (resumed["state"], resumed["step"], resumed["best"]) == ("COMPLETE", 200, whole["best"])


def test_every_trial_is_a_nested_run(folder: Path, left: dict[str, Any]) -> None:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("s4")
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id], max_results=100)}
    children = [run for run in runs.values() if run.data.tags["s4.kind"] == "trial"]
    parents = [runs[run.data.tags["mlflow.parentRunId"]].info.run_name for run in children]
    assert {name: parents.count(name) for name in parents} == {"moons": 6, "moons-confirm": 4, "ablation": 4}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
