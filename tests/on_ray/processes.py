"""Which actors of a search live in this test session's Ray, by the titles of their processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

OF_A_SEARCH = ("GangTrial", "Dispatcher", "Controllers", "RayTrainWorker")


def pids_of(name: str) -> list[int]:
    """Return the processes of this test session's Ray whose title holds a name."""
    return [pid for pid, title in _descendants(os.getpid()).items() if title.startswith("ray::") and name in title]


def wait_for_end(pid: int, patience_s: float = 30) -> None:
    """Wait until a process is gone."""
    deadline = time.monotonic() + patience_s
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def left_of_a_search(patience_s: float = 20) -> list[str]:
    """Wait until a search's processes are gone; return those that are not."""
    deadline = time.monotonic() + patience_s
    while True:
        left = [title for title in _descendants(os.getpid()).values() if _is_of_a_search(title)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _is_of_a_search(title: str) -> bool:
    return title.startswith("ray::") and any(name in title for name in OF_A_SEARCH)


def _descendants(ancestor: int) -> dict[int, str]:
    """Return titles by process id. Other sessions of Ray on this machine are somebody else's."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[pid] = (folder / "cmdline").read_bytes().decode(errors="replace").strip("\0")
        except OSError:  # it has just ended
            continue
    return {pid: title for pid, title in titles.items() if ancestor in _ancestors(pid, parents)}


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    seen: set[int] = set()
    while pid in parents and pid not in seen:
        seen.add(pid)
        pid = parents[pid]
    return seen
