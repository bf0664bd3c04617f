"""Which of Ray's actors live on this machine, by the titles of their processes."""

from __future__ import annotations

import time
from pathlib import Path

OF_A_SEARCH = ("GangTrial", "Dispatcher", "TrainController", "RayTrainWorker")


def left_of_a_search(patience_s: float = 20) -> list[str]:
    """Wait until a search's processes are gone; return those that are not."""
    deadline = time.monotonic() + patience_s
    while True:
        titles = [path.read_bytes().decode(errors="replace") for path in _command_lines()]
        left = [title for title in titles if title.startswith("ray::") and any(name in title for name in OF_A_SEARCH)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _command_lines() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True
