"""What an outbox says about its search: which runs are open, and what was not applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from harness.tracking.outbox import Operation, Outbox


@dataclass
class History:
    """What an outbox says about its search, and what an earlier driver did not get done."""

    opening: Operation | None = None
    """The first operation, which names the search."""
    open_trials: set[int] = field(default_factory=set)
    """Started and not ended."""
    ended: int = 0
    best: float | None = None
    """Best value of completed trials, as shown on the parent."""
    pending: list[tuple[Operation, int]] = field(default_factory=list)
    """Operations that were not applied, with their lines."""

    @classmethod
    def read(cls, outbox: Outbox) -> Self:
        """Return the history in an outbox; empty where it is new."""
        history, done = cls(), outbox.done()
        for line, operation in enumerate(outbox.operations(), start=1):
            history.opening = history.opening or operation
            if line > done:
                history.pending.append((operation, line))
            history.follow(operation)
        return history

    def follow(self, operation: Operation) -> None:
        """Take note of one operation."""
        match operation:
            case {"op": "start", "trial": number}:
                self.open_trials.add(number)
            case {"op": "end", "trial": number}:
                self.open_trials.discard(number)
                self.ended += 1
            case {"op": "report", "best": value}:
                self.best = value
