"""Modules that thin processes import load no torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "harness",
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
def test_a_light_module_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
