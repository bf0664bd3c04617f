"""When trials began and ended: the outbox stamps every operation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.run_folder import json_lines


class Span(NamedTuple):
    """A time during which a trial was trained. A trial that was interrupted has several."""

    trial: int
    start_s: float
    """Since the beginning, with the time between two sessions left out."""
    end_s: float
    state: str
    """How it ended; `INTERRUPTED` where nothing says so."""


class Times(NamedTuple):
    """What the outbox tells of time."""

    spans: Sequence[Span]
    """In order of their beginnings."""
    sessions: Sequence[float]
    """Seconds at which drivers began; the first one at 0."""
    git_sha: str | None
    began_unix: float | None
    """When the first driver began."""


NO_TIMES = Times((), (), None, None)


def read_times(outbox: Path) -> Times:
    """Return the times in an outbox; none where there is no outbox.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is not an outbox.
    """
    clock, spans, sessions = _Clock(), list[Span](), list[float]()
    open_trials: dict[int, tuple[float, float]] = {}
    git_sha, began = None, None
    for operation in json_lines(outbox):
        now, number = clock.at(operation), operation.get("trial")
        match operation["op"]:
            case "open":
                spans += [Span(trial, start, last, "INTERRUPTED") for trial, (start, last) in open_trials.items()]
                open_trials.clear()
                sessions.append(now)
                began = began or operation["time"] / 1000
                git_sha = operation.get("tags", {}).get("s4.git_sha", git_sha)
            case "start" if number is not None:
                open_trials[number] = open_trials.get(number, (now, now))
            case "report" if number in open_trials:
                open_trials[number] = (open_trials[number][0], now)
            case "end" if number in open_trials:
                start, _ = open_trials.pop(number)
                spans.append(Span(number, start, now, operation["tags"].get("s4.state", "INTERRUPTED")))
    spans += [Span(trial, start, last, "INTERRUPTED") for trial, (start, last) in open_trials.items()]
    return Times(sorted(spans, key=lambda span: (span.start_s, span.trial)), sessions, git_sha, began)


def lanes(spans: Sequence[Span]) -> list[int]:
    """Return a lane for each span, the lowest that is free: as many lanes as trials ran at once."""
    free_at: list[float] = []
    found = []
    for span in spans:
        lane = next((index for index, end in enumerate(free_at) if end <= span.start_s), len(free_at))
        free_at[lane : lane + 1] = [span.end_s]
        found.append(lane)
    return found


class _Clock:
    """Seconds since the first operation, without the time between two sessions."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._behind = 0.0
        """Unix time at which the clock shows 0."""

    def at(self, operation: dict[str, Any]) -> float:
        stamp = float(operation["time"]) / 1000
        if self._last is None:
            self._behind = stamp
        elif operation["op"] == "open":
            self._behind += max(0.0, stamp - self._last)
        self._last = max(stamp, self._last or stamp)
        return max(0.0, stamp - self._behind)
