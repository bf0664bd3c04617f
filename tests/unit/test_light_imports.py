"""Modules that thin processes and every command import load nothing that is slow to import."""

import subprocess
import sys

import pytest

SLOW = {"torch", "mlflow", "matplotlib", "scipy.stats"}


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
