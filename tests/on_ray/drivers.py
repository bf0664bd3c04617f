"""Starts drivers as processes of their own, on this test session's Ray or on one of their own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import ray
from deadly import DIE_AT

PROGRAM = Path(__file__).with_name("search_program.py")


def start_driver(
    storage: Path,
    name: str,
    trials: int,
    step_s: float = 0.1,
    min_free_gib: float = 0.0,
    log: Path | None = None,
    marks: Path | None = None,
    address: str | None = None,
    terminal: int | None = None,
    within: Sequence[str] = (),
    dies_at: str | None = None,
    kind: str = "search",
) -> subprocess.Popen[bytes]:
    """Start a driver in a session and a process group of its own.

    Args:
        log: where its words go; none: `driver.log` in `storage`.
        marks: where the stand-in for training leaves its notes; none: `storage`.
        address: of Ray; none: that of this test session.
        terminal: descriptor of the terminal that the driver has; none: it has no terminal, and writes into its log.
        within: words of a command that runs the driver.
        dies_at: write at which the driver ends itself by SIGKILL, FILE:NUMBER.
        kind: of the run: `search`, `train`, `ablate`; `shared`: a search on a study in a SQLite file in `storage`.
    """
    address = address or ray.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}  # PYTHONPATH is that of the session's Ray
    if dies_at is not None:
        environment[DIE_AT] = dies_at
    words = [kind, address, storage, marks or storage, name, trials, step_s, min_free_gib]
    with (log or storage / "driver.log").open("ab") as file:
        return subprocess.Popen(
            [*within, sys.executable, str(PROGRAM), *map(str, words)],
            env=environment,
            stdout=file if terminal is None else terminal,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=None if terminal is None else lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
        )
