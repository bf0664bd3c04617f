"""Lets a process end itself by SIGKILL at one of its writes; of a line that it writes there, half is left.

DIE_AT=FILE:NUMBER is the write, by the name of the file that it changes, counted from 0. Renames, removals and new
folders count as writes.
"""

from __future__ import annotations

import builtins
import io
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DIE_AT = "DIE_AT"


class _Handle:
    """A file that is open for writing."""

    def __init__(self, file: Any, death: Death) -> None:
        self._file, self._death = file, death

    def write(self, data: Any) -> Any:
        if self._death.has_come():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            self._death.die()
        return self._file.write(data)

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Death:
    """Counts the writes of a file, and ends the process at one of them."""

    def __init__(self, at: str) -> None:
        self.file, _, number = at.rpartition(":")
        self._number, self._seen = int(number), itertools.count()

    def has_come(self) -> bool:
        """Count a write, and return whether it is the last."""
        return next(self._seen) == self._number

    def die(self) -> None:
        """End this process; nothing that is written down for its end happens."""
        os.kill(os.getpid(), signal.SIGKILL)

    def lie_in_wait(self) -> None:
        """Put this death into everything that writes."""
        for name in ("replace", "rename", "link", "symlink", "unlink", "mkdir"):
            self._guard(name)
        opened = io.open

        def open_(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            handle = opened(file, mode, *arguments, **options)
            return _Handle(handle, self) if self._is(file) and set(mode) & set("wax+") else handle

        io.open = builtins.open = open_  # type: ignore[assignment]

    def _guard(self, name: str) -> None:
        plain = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if self._is(arguments[-1]) and self.has_come():
                self.die()
            return plain(*arguments, **options)

        setattr(os, name, call)

    def _is(self, file: Any) -> bool:
        return not isinstance(file, int) and Path(os.fsdecode(file)).name == self.file
