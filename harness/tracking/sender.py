"""The thread that sends operations to MLflow, in order, and retries while it cannot be reached.

Everything slow or broken about a tracking server stays in this thread, the import of MLflow included.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from harness.formats import one_line
from harness.tracking.outbox import Operation, Outbox

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
UNHURT = 4
"""How many times as long as after an error is waited for what goes well: a store's tables, a long backlog."""

log = logging.getLogger(__name__)

MERGED = 1000
"""Operations that are applied together at most."""
HELD = 2000
"""Operations that wait in memory, at most; what else waits is read from the outbox when its turn comes."""

Apply = Callable[[Sequence[Operation]], None]
"""Applies operations in order."""


class Waiting(NamedTuple):
    """An operation that was handed over, and its line in the outbox, where it is read if it is not kept here."""

    operation: Operation | None
    line: int


class Lines:
    """Lines of a file that grows, read in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._read = 0

    def read(self, line: int) -> Operation:
        """Return the operation of a line, counted from 1, which must come after those that were read before."""
        self._file = self._file or self._path.open("rb")
        text = b""
        while self._read < line:
            text = self._file.readline()
            self._read += 1
        operation: Operation = json.loads(text)
        return operation

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Sender:
    """Applies operations in a daemon thread; the first that cannot reach MLflow is retried until it can, or `close`.

    What waits is applied together, so that what an outage left drains in fewer requests.
    """

    def __init__(self, outbox: Outbox, connect: Callable[[], Apply]) -> None:
        """Start the thread. `connect` is called in it, and returns what applies an operation."""
        self.applied = self.rejected = 0
        self.last_error: str | None = None
        self._outbox = outbox
        self._connect = connect
        self._apply: Apply | None = None
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._handed = outbox.done()
        """Operations of the outbox that were handed over, or applied before."""
        self._lines = Lines(outbox.path)
        self._all_done = False
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="s4-tracking", daemon=True)
        self._thread.start()

    def send(self, operation: Operation | None, line: int) -> None:
        """Hand over the operation that the outbox holds as its `line`-th, none: it is read there; returns at once."""
        written = line > self._handed  # on a full disk it is nowhere else
        self._handed = line
        self._queue.put(Waiting(None if written and self._queue.qsize() >= HELD else operation, line))

    def close(self, timeout_s: float) -> bool:
        """Wait at most this long until everything is applied, stop, and return whether it was.

        Where MLflow has not failed yet, it is waited for `UNHURT` times as long.
        """
        self._queue.put(None)
        self._closing.set()
        self._thread.join(timeout_s)
        if self.last_error is None:
            self._thread.join((UNHURT - 1) * timeout_s)
        self._abandoned.set()
        return self._all_done

    def _work(self) -> None:
        with closing(self._lines):
            self._send_all()

    def _send_all(self) -> None:
        while group := self._next_group():
            operations = [self._lines.read(line) if operation is None else operation for operation, line in group]
            if not self._deliver(operations):
                return
            self._outbox.mark_done(group[-1].line)
        self._all_done = True

    def _next_group(self) -> list[Waiting]:
        """Wait for something to do, and return what waits, with its lines in the outbox; empty after `close`."""
        group = [self._queue.get()]
        while group[-1] is not None and len(group) < MERGED and not self._queue.empty():
            group.append(self._queue.get())
        if group[-1] is None and len(group) > 1:
            self._queue.put(None)
        return [item for item in group if item is not None]

    def _deliver(self, operations: list[Operation]) -> bool:
        """Apply operations, retrying; skip those that MLflow refuses, and return false when `close` gave up."""
        wait_s = FIRST_WAIT_S
        while not self._abandoned.is_set():
            try:
                if self._apply is None:
                    self._apply = self._connect()
                self._apply(operations)
                self.applied += len(operations)
                return True
            except Exception as error:
                self.last_error = _one_line(error)
                if self._apply is not None and _is_refusal(error):
                    if len(operations) > 1:  # one of them is wrong
                        return all(self._deliver([operation]) for operation in operations)
                    self.rejected += 1
                    log.warning("MLflow refused %s: %s", operations[0]["op"], self.last_error)
                    return True
                log.debug("MLflow cannot be reached, retrying: %s", self.last_error)
            (self._abandoned if self._closing.is_set() else self._closing).wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S) if not self._closing.is_set() else FIRST_WAIT_S
        return False


def _one_line(error: Exception) -> str:
    """Return what to tell the user: what is wrong with the server, rather than what it answered."""
    if (status := _status(error)) not in (401, 403):
        return one_line(error, 300)
    variables = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return f"the server lets in only users it knows (answer {status}): set {variables}"


def _is_refusal(error: Exception) -> bool:
    """Return whether MLflow will refuse the same operation again: it was understood, and it is wrong."""
    if isinstance(error, TypeError | KeyError | AttributeError | ValueError):
        return True
    status = _status(error)
    return status is not None and 400 <= status < 500 and status not in (401, 403, 408, 429)


def _status(error: Exception) -> int | None:
    """Return the HTTP status that MLflow gives an error; none where it comes from elsewhere."""
    known: Callable[[], int] | None = getattr(error, "get_http_status_code", None)
    return None if known is None else known()
