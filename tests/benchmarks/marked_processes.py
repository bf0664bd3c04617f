"""Runs a script and whatever it starts, and sees to it that all of it ends.

Ray's processes leave the group and the session of the process that started them, but they inherit its environment:
a mark there tells them from everybody else's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

MARK = "S4_BENCHMARK_MARK"
PATIENCE_S = 20.0
"""How long processes may take to end by themselves, once the script was told to."""


class Marked:
    """A running script and its descendants."""

    def __init__(self, process: subprocess.Popen[str], mark: str, patience_s: float) -> None:
        self.process = process
        self._patience_s = patience_s
        self._needle = f"{MARK}={mark}".encode()

    def living(self) -> list[int]:
        """Return the ids of all processes that carry the mark."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended, or is another user's
                if self._needle in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def end(self) -> int:
        """End the script, wait for its descendants and kill those that stay; return how many those were."""
        if self.process.poll() is None:
            self.process.terminate()
        deadline = time.monotonic() + self._patience_s
        while self.living() and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(0.2)
        killed = set()
        while left := self.living():  # again: one that is being killed may have started another
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(left)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()
        return len(killed)


@contextmanager
def marked(script: Path, *arguments: str, log: IO[str], patience_s: float = PATIENCE_S) -> Iterator[Marked]:
    """Start `python script arguments` with its output in `log`; end it and its descendants on leaving."""
    mark = uuid.uuid4().hex
    path = os.pathsep.join(filter(None, (str(script.parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", MARK: mark}
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
    )
    started = Marked(process, mark, patience_s)
    try:
        yield started
    finally:
        started.end()
