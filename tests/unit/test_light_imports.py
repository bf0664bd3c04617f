"""Modules that thin processes and every command import load nothing that is slow to import."""

import subprocess
import sys

import pytest
import torch

SLOW = {"torch", "mlflow", "matplotlib", "scipy.stats"}
HEAVY = {"sklearn"} if torch.cuda.is_available() else {"torch", "sklearn"}
CHECK = """
import sys
from harness.cluster import local_slots
from harness.experiment import CssExperiment

local_slots()
experiment = CssExperiment.of("digits_css", {"compute.graph": False})
experiment.check(2)
experiment.data_digest
"""
TRAINING = """
import sys
from trainers.loop import train, warm_up
from trainers.local_run import LocalRun
from trainers.overrides import apply_overrides
from trainers.presets import load_preset

steps = {"schedule.steps": 1, "schedule.evaluate_every": 1, "data.dev": 2, "data.unlabelled": 16}
config = apply_overrides(load_preset("digits_css"), steps)
warm_up(config, LocalRun())
train(config, LocalRun())
"""


@pytest.mark.parametrize(
    "module",
    [
        "harness",
        "harness.api",
        "harness.trials",
        "search_spaces",
        "trainers.config",
        "trainers.errors",
        "trainers.methods",
        "trainers.overrides",
        "trainers.presets",
        "trainers.run",
    ],
)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; sys.exit(', '.join({SLOW} & {{*sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert loaded.stderr.strip() == ""


@pytest.mark.parametrize(
    ("code", "slow"), [(CHECK, HEAVY), (TRAINING, {"torch._dynamo", "torch._inductor", "sklearn"})]
)
def test_no_process_of_a_start_loads_what_it_does_not_need(code: str, slow: set[str]) -> None:
    code += f"print(*{slow} & {{*sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout.strip() == ""
