"""Shell scripts pass shellcheck, stop at the first error, and can be started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_paths import CLUSTER, REPOSITORY, shell_scripts

SCRIPTS = shell_scripts()
SOURCED = CLUSTER / "slurm" / "job.sh"


def name(path: Path) -> str:
    return str(path.relative_to(CLUSTER))


def test_there_are_scripts_to_check() -> None:
    assert {"start-or-resume.sh", "slurm/exclusive.sbatch", "slurm/shared.sbatch"} <= set(map(name, SCRIPTS))


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    command = str(beside) if beside.exists() else shutil.which("shellcheck")
    if command is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([command, "-x", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_a_script_stops_at_the_first_error_and_says_what_it_is_for(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[1].startswith("# ")
    if script != SOURCED:
        assert lines[0] == "#!/usr/bin/env bash"
        assert "set -euo pipefail" in lines


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.suffix == ".sh" and path != SOURCED], ids=name)
def test_a_script_is_executable(script: Path) -> None:
    assert os.access(script, os.X_OK)
