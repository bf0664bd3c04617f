"""The outbox of a run: an append-only log of what MLflow is to be told."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from harness.ledger import end_with_a_whole_line, json_lines
from harness.one_driver import HeldError, Lock
from harness.run_folder import put_aside, write_whole
from trainers.errors import UsageError

Operation = dict[str, Any]

log = logging.getLogger(__name__)


def stamped(op: str, **more: object) -> Operation:
    """Return an operation that happens now, in milliseconds since 1970."""
    return {"op": op, "time": int(time.time() * 1000), **more}


def pending(path: Path) -> int:
    """Return how many operations of an outbox have not been applied, without opening it."""
    return path.read_bytes().count(b"\n") - _done(path) if path.exists() else 0


def operations(path: Path) -> Iterator[Operation]:
    """Yield the operations of an outbox, without opening it; none where there is no file.

    Raises:
        UsageError: a line is no operation, or the first one names no runs.
    """
    try:
        for number, operation in enumerate(json_lines(path), start=1):
            if not isinstance(operation.get("op"), str):
                raise ValueError(f"line {number} has another shape: {json.dumps(operation)[:100]}")
            if number == 1 and not is_opening(operation):
                raise ValueError("its first line names no runs")
            yield operation
    except ValueError as error:
        raise UsageError(
            f"{path} must hold operations, it does not: {error}; the ledger and what MLflow received are as they were: "
            f"s4 doctor {path.parent.name} --fix takes out what cannot be read"
        ) from None


def is_opening(operation: Operation) -> bool:
    """Return whether an operation is one that an outbox begins with: it names the runs in MLflow."""
    texts, tags = ("experiment", "kind", "name", "search_id"), operation.get("tags")
    return all(isinstance(operation.get(key), str) for key in texts) and isinstance(tags, dict)


def require_operations(path: Path) -> None:
    """Read an outbox without opening it.

    Raises:
        UsageError: a line is no operation, or the first one names no runs.
    """
    for _ in operations(path):
        pass


def mend_outbox(path: Path) -> None:
    """Take out of an outbox that nobody sends what cannot be read, and keep a copy of it aside.

    Where its first operation is lost, which names the runs in MLflow, nothing is kept: the run goes on in new ones.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    read = {number: _operation_in(line) for number, line in enumerate(lines, start=1)}
    begun = read[1] is not None and is_opening(read[1])
    good = [number for number, operation in read.items() if begun and operation is not None]
    done = sum(number <= _done(path) for number in good)
    kept = b"".join(lines[number - 1] for number in good).decode()
    write_whole(_done_file(path), str(done))  # first: what is sent twice changes nothing, what is passed over is lost
    put_aside(path)
    if good:
        write_whole(path, kept)


def _operation_in(line: bytes) -> Operation | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if line.endswith(b"\n") and isinstance(data, dict) and isinstance(data.get("op"), str) else None


def how_closed(path: Path) -> str | None:
    """Return MLflow's status with which a run's own record was closed; none where it is open, or nothing was recorded.

    `s4 sync` closes what a killed driver left open as KILLED, so only a session that came to its end leaves FINISHED.

    Raises:
        UsageError: the outbox cannot be read.
    """
    state = OutboxState()
    for operation in operations(path):
        state.follow(operation)
    return state.closed


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
        yield from json_lines(self.path)

    def done(self) -> int:
        """Return how many operations have been applied."""
        return _done(self.path)

    def mark_done(self, count: int) -> None:
        """Note that the first `count` operations have been applied."""
        try:
            write_whole(_done_file(self.path), str(count))
        except OSError as error:
            log.debug("cannot write what was sent of %s: %s", self.path, error)

    def close(self) -> None:
        """Close the file, and let others open it; what it holds stays."""
        self._file.close()
        self._lock.release()


def _done_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.done")


def _done(path: Path) -> int:
    try:
        return int(_done_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


@dataclass
class OutboxState:
    """What an outbox says about its search, and what an earlier driver did not get done."""

    opening: Operation | None = None
    """The first operation, which names the search."""
    open_trials: set[int] = field(default_factory=set)
    """Started and not ended."""
    steps: dict[int, float] = field(default_factory=dict)
    """Of each trial's last report."""
    ended: set[int] = field(default_factory=set)
    """Ended, and not started again since."""
    status: str | None = None
    """MLflow's, of the trial that ended last."""
    closed: str | None = None
    """MLflow's status with which the parent, or the single run of a training, was ended after it was opened."""
    best: float | None = None
    """Best value of completed trials, as shown on the parent."""

    @classmethod
    def read(cls, outbox: Outbox) -> Self:
        """Return the history in an outbox; empty where it is new.

        Raises:
            UsageError: a line is no operation; the outbox is closed then.
        """
        history = cls()
        try:
            for operation in operations(outbox.path):
                history.opening = history.opening or operation
                history.follow(operation)
        except UsageError:
            outbox.close()
            raise
        return history

    def follow(self, operation: Operation) -> None:
        """Take note of one operation."""
        match operation:
            case {"op": "open"}:
                self.closed = None
            case {"op": "start", "trial": number}:
                self.open_trials.add(number)
                self.ended.discard(number)
            case {"op": "end", "trial": int(number), "status": status}:
                self.open_trials.discard(number)
                self.ended.add(number)
                self.status = status
            case {"op": "end", "status": status}:
                self.closed = status
            case {"op": "report", "best": value}:
                self.best = value
            case {"op": "report", "trial": int(number), "step": step}:
                self.steps[number] = step
