"""The outbox: every operation is a line of a file before anything else happens to it.

`outbox.jsonl` is append-only and complete in itself; `outbox.jsonl.done` holds how many of its lines have been applied.
An operation may be applied twice (the driver died between the two files), never zero times: operations are idempotent.
`outbox.jsonl.lock` is held by the one process that writes and sends: two would create a run twice, each unaware of the
other's.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.files import end_with_a_whole_line, write_whole
from harness.lock import HeldError, Lock
from trainers.errors import UsageError

Operation = dict[str, Any]

log = logging.getLogger(__name__)


def stamped(op: str, **more: object) -> Operation:
    """Return an operation that happens now, in milliseconds since 1970."""
    return {"op": op, "time": int(time.time() * 1000), **more}


def pending(path: Path) -> int:
    """Return how many operations of an outbox have not been applied, without opening it."""
    return path.read_bytes().count(b"\n") - _done(path) if path.exists() else 0


class Outbox:
    """A file of operations. Appending never raises: a full disk costs the record, not the search."""

    def __init__(self, path: Path) -> None:
        """Open the outbox, which is made where there is none.

        Raises:
            UsageError: another process has it open.
        """
        self.path = path
        try:
            self._lock = Lock(path.with_name(path.name + ".lock"))
        except HeldError as error:
            raise UsageError(
                f"an outbox must be sent by one process at a time, {path} is held by {error}, which sends it: wait "
                "for it, or interrupt it"
            ) from None
        end_with_a_whole_line(path)
        self.count = path.read_bytes().count(b"\n") if path.exists() else 0
        self._file = path.open("ab", buffering=0)
        self._broken = False

    def append(self, operation: Operation) -> int:
        """Write the operation down, and return how many operations the file holds now.

        After a failure nothing more is written, so that no line follows a half one.
        """
        if self._broken:
            return self.count
        try:
            self._file.write(json.dumps(operation, allow_nan=False, separators=(",", ":")).encode() + b"\n")
            self.count += 1
        except OSError as error:
            log.warning("cannot write %s (%s): tracking goes on without it", self.path, error)
            self._broken = True
        return self.count

    def operations(self) -> Iterator[Operation]:
        """Yield all operations, oldest first; the n-th is line n."""
        with self.path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def done(self) -> int:
        """Return how many operations have been applied."""
        return _done(self.path)

    def mark_done(self, count: int) -> None:
        """Note that the first `count` operations have been applied."""
        try:
            write_whole(_done_path(self.path), str(count))
        except OSError as error:
            log.debug("cannot write what was sent of %s: %s", self.path, error)

    def close(self) -> None:
        """Close the file, and let others open it; what it holds stays."""
        self._file.close()
        self._lock.release()


def _done_path(path: Path) -> Path:
    return path.with_name(path.name + ".done")


def _done(path: Path) -> int:
    try:
        return int(_done_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
