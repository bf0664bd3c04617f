"""What one process at a time may do, on one or several machines."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path


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
