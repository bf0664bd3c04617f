"""One driver at a time for each search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.lock import HeldError, Lock
from trainers.errors import UsageError

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
