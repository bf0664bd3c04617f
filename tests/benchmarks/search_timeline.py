"""When the trials of a search started, reported and ended, and what follows from it. Knows no Ray.

A search writes one JSON line an event while it runs, so that what was measured survives a search that hangs. Times
are of the clock on the wall, in seconds, because several processes take them.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["complete", "pruned", "failed"]


class EventLog:
    """The file that a search writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, event: str, **what: Any) -> None:
        """Add a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "time": time.time(), **what}) + "\n")


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events so far, in order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class Span(NamedTuple):
    """One trial that ended."""

    start: float
    end: float
    next_start: float | None
    """When its place was taken by the next trial; none for the last ones."""
    steps: int
    kind: Kind
    first: bool
    """Whether it opened its place: it then waited for the search itself to start."""

    @property
    def held_s(self) -> float | None:
        """Seconds that the trial kept its place, the way to the next trial's start included."""
        return None if self.next_start is None else self.next_start - self.start


def spans(events: Iterable[dict[str, Any]], places: int, horizon: int) -> list[Span]:
    """Return the trials that ended, in the order of their ends.

    With `places` trials at a time the k-th end makes room for start number `places` + k.
    """
    starts = [(event["time"], event["trial"]) for event in events if event["event"] == "start"]
    began = {trial: when for when, trial in starts}
    opened = {trial for _, trial in starts[:places]}
    done = []
    for number, event in enumerate(event for event in events if event["event"] == "end"):
        follower = places + number
        kind: Kind = "failed" if event["failed"] else "complete" if event["steps"] >= horizon else "pruned"
        done.append(
            Span(
                start=began[event["trial"]],
                end=event["time"],
                next_start=starts[follower][0] if follower < len(starts) else None,
                steps=event["steps"],
                kind=kind,
                first=event["trial"] in opened,
            )
        )
    return done


class Side(NamedTuple):
    """One of the two searches, measured."""

    trials: int
    """Asked for."""
    spans: Sequence[Span]
    """Of those that ended."""
    wall_s: float
    """From the start of the process to the search's return; to the last end where it was cut short."""
    setup_s: float
    """From the start of the process to the first report of a trial."""
    cut_short: bool
    processes_left: int
    """Still there 20 s after the process had ended; they were killed."""

    def held(self, *kinds: Kind) -> list[float]:
        """Seconds that trials of these kinds kept a place, of those that neither waited for the start nor were last."""
        return [span.held_s for span in self.spans if span.kind in kinds and not span.first and span.held_s is not None]

    def count(self, kind: Kind) -> int:
        """How many trials ended like this."""
        return sum(span.kind == kind for span in self.spans)


def steady_trials_per_hour(side: Side, places: int) -> float | None:
    """Trials an hour once the search runs; none where too few trials were measured."""
    held = side.held("complete", "pruned")
    return 3600 * places / statistics.fmean(held) if held else None


def wall_for(side: Side, like: Side, places: int) -> float:
    """Seconds that `side` takes for as many trials as `like` has.

    What it did not run is added: its own mean seconds of a pruned and of a complete trial, as many of each as the
    later trials of `like` have. (Early trials are pruned less often, so a plain mean would be too high.)
    """
    missing = like.spans[len(side.spans) :]
    extra = 0.0
    for span in missing:
        held = side.held(span.kind) or side.held("complete", "pruned")
        if not held:
            raise ValueError(f"some trial must have run between two others, got {len(side.spans)} in all: run more")
        extra += statistics.fmean(held) / places
    return side.wall_s + extra
