"""Statistics can be had without a cluster, a tracking server or a network."""

import subprocess
import sys
from pathlib import Path

import harness.statistics

MODULES = sorted(file.stem for file in Path(harness.statistics.__path__[0]).glob("[a-z]*.py"))


def test_statistics_need_neither_torch_nor_ray_nor_mlflow() -> None:
    imports = ", ".join(f"harness.statistics.{module}" for module in MODULES)
    heavy = "{'torch', 'ray', 'mlflow', 'optuna', 'matplotlib'}"
    code = f"import sys, {imports}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert MODULES
    assert done.stdout == "[]\n"
