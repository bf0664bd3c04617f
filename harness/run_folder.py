"""The folder of a run: paths of checkpoints, atomic writes, and the lock of its driver."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainers.errors import UsageError

LATEST, PREVIOUS, NEXT = "latest.pt", "previous.pt", "next.pt"
"""A trial's checkpoint, the one before it, for the case that the newer cannot be read, and the one being written."""
APART = "step-*.pt"
"""States that a scheduler had saved, to come back to or to clone."""


def checkpoint_folder(root: Path, number: int) -> Path:
    """Return where a trial's checkpoints lie, below the search's."""
    return root / f"{number:05d}"


def apart(folder: Path, step: int) -> Path:
    """Return the name of a state that is saved apart; names sort by step."""
    return folder / APART.replace("*", f"{step:08d}")


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def fresh_folder(folder: Path) -> Path:
    """Make and return a numbered folder below this one: Ray goes on with what it finds under a name it knows."""
    number = 1
    while (folder / f"{number:03d}").exists():
        number += 1
    (folder / f"{number:03d}").mkdir(parents=True)
    return folder / f"{number:03d}"


def end_with_a_whole_line(path: Path) -> None:
    """Cut off a line that was left half written in an append-only file; a file that does not exist is whole."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of an append-only file, one a line; half a line that a killed driver left is passed over.

    Raises:
        ValueError: a whole line is no JSON.
        OSError: the file cannot be read; one that does not exist has no lines.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)


class HeldError(Exception):
    """Another process holds a lock; the message says which."""


class Lock:
    """A file that one process holds until it releases it; the system lets go of it however that process ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock; folders are made where they are missing.

        Raises:
            HeldError: another process holds it, or this one does already.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with self._file:
                self._file.seek(0)
                raise HeldError(self._file.read().strip() or "another process") from None
        with suppress(OSError):  # a full disk: the name is for people
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()

    def release(self) -> None:
        """Let go of it; twice is once."""
        with suppress(OSError):
            self._file.close()


LOCK = "driver.lock"


@contextmanager
def sole_driver(folder: Path) -> Iterator[None]:
    """Hold a search's lock.

    Raises:
        UsageError: another process holds it.
    """
    try:
        lock = Lock(folder / LOCK)
    except HeldError as error:
        raise UsageError(
            f"a search must have one driver, {folder.name} is being run by {error}: wait for it, or interrupt it"
        ) from None
    try:
        yield
    finally:
        lock.release()
