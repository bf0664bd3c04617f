"""One driver at a time for each search."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainers.errors import UsageError

LOCK = "driver.lock"


@contextmanager
def sole_driver(folder: Path) -> Iterator[None]:
    """Hold a search's lock; the system lets go of it however this process ends.

    Raises:
        UsageError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"a search must have one driver, {folder.name} is being run by {file.read().strip() or 'another'}: "
                "wait for it, or interrupt it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
