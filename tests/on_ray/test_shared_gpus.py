"""Three gangs on one GPU, which Ray is only told of: where they are put, and what is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.ledger import LEDGER, read_ledger

PROGRAM = """
import json
import os
import sys
import time
from pathlib import Path

import ray
import ray.train.torch
import torch

import harness
from trainers.errors import UsageError
from analytic import Analytic, quality_space


class Marking(Analytic):
    # Notes when it trains, and the GPU that Ray gave it.
    def train(self, overrides, run):
        begun, gpus = time.time(), ray.get_gpu_ids()
        config_hash = super().train(overrides, run)
        mark = self.folder / f"{overrides['quality']}.mark"
        mark.write_text(json.dumps({"begun": begun, "ended": time.time(), "gpus": gpus, "pid": os.getpid()}))
        return config_hash

    def __setstate__(self, state):
        # In a worker, which has been promised a GPU: it computes on the CPU.
        self.__dict__.update(state)
        ray.train.torch.get_device = lambda: torch.device("cpu")


folder = Path(sys.argv[1])
ray.init(num_cpus=4, num_gpus=1, include_dashboard=False)
options = {"space": quality_space(), "scheduler": "none", "address": "auto", "storage": folder / "runs",
           "tracking_uri": f"sqlite:///{folder}/mlflow.db", "report": False}
try:
    harness.search(Marking(folder), trials=9, gangs=4, gangs_per_gpu=3, name="four", **options)
except UsageError as error:
    (folder / "refused.txt").write_text(str(error))
harness.search(Marking(folder, step_s=0.3), trials=6, gangs_per_gpu=3, name="shared", **options)
ray.shutdown()
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": here}
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], env=environment, check=True, timeout=300, cwd=folder)
    return folder


def test_three_gangs_train_at_once_on_the_one_gpu(left: Path) -> None:
    marks = [json.loads(path.read_text()) for path in left.glob("*.mark")]
    assert len(marks) == 6
    assert {tuple(mark["gpus"]) for mark in marks} == {(0,)}
    moments = [mark["begun"] for mark in marks]
    at_once = [{mark["pid"] for mark in marks if mark["begun"] <= moment < mark["ended"]} for moment in moments]
    assert max(map(len, at_once)) == 3


def test_three_gangs_hold_one_device(left: Path) -> None:
    history = read_ledger(left / "runs" / "shared" / LEDGER)
    assert 0.8 * history.elapsed_s < history.device_s <= 1.01 * history.elapsed_s


def test_a_fourth_gang_is_refused_before_anything_is_written(left: Path) -> None:
    said = "must be at most the 3 places of 1/3 GPU and 1 CPU there are, got 4 x 1 = 4"
    assert said in (left / "refused.txt").read_text()
    assert not (left / "runs" / "four").exists()
