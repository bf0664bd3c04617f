"""Starts drivers as processes of their own, on this test session's Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ray

PROGRAM = Path(__file__).with_name("search_program.py")


def start_driver(
    storage: Path, name: str, trials: int, step_s: float = 0.1, min_free_gib: float = 0.0, log: str = "driver.log"
) -> subprocess.Popen[bytes]:
    """Start a driver; what it says goes to a file in `storage`."""
    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "PYTHONPATH": str(PROGRAM.parent)}
    with (storage / log).open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), address, str(storage), name, str(trials), str(step_s), str(min_free_gib)],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
