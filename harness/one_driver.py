"""One driver of a run: the lock of its folder, and the folder of a new run, which is locked from its first moment."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TextIO

from harness.run_folder import check_writable, named_folder
from trainers.drafts import is_draft
from trainers.errors import UsageError

LOCK = "driver.lock"


class TakenError(UsageError):
    """Another process drives the run."""


class HeldError(Exception):
    """Another process holds a lock; the message says which."""


class Lock:
    """A file that one process holds until it releases it; the system lets go of it however that process ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock; folders are made where they are missing.

        Raises:
            HeldError: another process holds it, or this one does already.
            UsageError: the file system has no locks.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = self._open()
        while not self._is_there():  # its holder let go of it, and removed it, in between
            self._file.close()
            self._file = self._open()
        with suppress(OSError):  # a full disk: the name is for people
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()

    def release(self) -> None:
        """Remove it and let go of it; twice is once."""
        if self._file.closed:
            return
        with suppress(OSError):
            self._path.unlink()
        with suppress(OSError):
            self._file.close()

    def _open(self) -> TextIO:
        file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                raise HeldError(file.read().strip() or "another process") from None
        except OSError as error:
            file.close()
            raise UsageError(
                f"--storage must be on a file system with locks (flock; NFS has them unless mounted with nolock), "
                f"{self._path.parent} is not ({error.strerror}): choose another"
            ) from None
        return file

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


def driver_of(folder: Path) -> str | None:
    """Return which process drives a run now, without taking its lock; none: nobody does."""
    try:
        with (folder / LOCK).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (folder / LOCK).read_text(encoding="utf-8").strip() or "another process"
    except OSError:  # nobody did, or a file system without locks, on which there are no runs
        return None
    return None


_driving: dict[Path, int] = {}
"""Folders of which this process holds the lock, and the thread that took it."""


@contextmanager
def sole_driver(folder: Path) -> Iterator[Path]:
    """Yield the folder of a run, locked. Within itself, in a thread, this does nothing. Folders left empty are removed.

    Raises:
        UsageError: another process holds it, or the file system has no locks.
    """
    if _driving.get(folder) == threading.get_ident():
        yield folder
        return
    check_writable(folder, "--storage")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        lock = Lock(folder / LOCK)
    except HeldError as error:
        raise TakenError(
            f"a run must have one driver, {folder.name} is being run by {error}: wait for it, or interrupt it"
        ) from None
    _driving[folder] = threading.get_ident()
    try:
        yield folder
    finally:
        del _driving[folder]
        lock.release()
        with suppress(OSError):  # something began
            for path in missing:
                path.rmdir()


def is_new(folder: Path) -> bool:
    """Return whether nothing began in a folder: it is missing, or a killed driver left its lock and drafts."""
    if not folder.is_dir():
        return not folder.exists()
    return all(path.name == LOCK or is_draft(path) for path in folder.iterdir())


@contextmanager
def new_run(storage: Path, name: str | None, stem: str) -> Iterator[Path]:
    """Yield the absolute folder of a new run, locked: of this name, or of the first free `stem-001`, `stem-002`, ...

    Raises:
        UsageError: the name, or what a file or an experiment makes of it, is not one, or it is taken.
    """
    place = named_folder(storage, f"{stem}-000" if name is None else name).parent
    numbered = (place / f"{stem}-{number:03d}" for number in count(1))
    for folder in (named_folder(storage, name),) if name is not None else numbered:
        with ExitStack() as held:
            try:
                if is_new(folder):
                    held.enter_context(sole_driver(folder))
            except TakenError:  # a moment ago
                continue
            if folder in _driving and is_new(folder):
                yield folder
                return
    raise UsageError(
        f"a name must be free, {place / str(name)} exists: take another --name, or remove the folder to start again "
        f"(s4 report {name} shows what it holds)"
    )
