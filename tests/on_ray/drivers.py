"""Starts drivers as processes of their own, on this test session's Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ray

PROGRAM = Path(__file__).with_name("search_program.py")


def start_driver(
    storage: Path,
    name: str,
    trials: int,
    step_s: float = 0.1,
    min_free_gib: float = 0.0,
    log: Path | None = None,
    marks: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a driver.

    Args:
        log: where its words go; none: `driver.log` in `storage`.
        marks: where the stand-in for training leaves its notes; none: `storage`.
    """
    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}  # PYTHONPATH is that of the session's Ray
    words = [address, storage, marks or storage, name, trials, step_s, min_free_gib]
    with (log or storage / "driver.log").open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), *map(str, words)],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
