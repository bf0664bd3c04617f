"""The ledger of a run: an append-only log of what its trials did, and what it tells."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from harness.start import Start
from harness.trials import Trial, TrialState
from trainers.errors import UsageError


def end_with_a_whole_line(path: Path) -> None:
    """Cut off a line that was left half written in an append-only file; a file that does not exist is whole."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of an append-only file, one a line; half a line that a killed driver left is passed over.

    Raises:
        ValueError: a whole line is no JSON object; with its number.
        OSError: the file cannot be read; one that does not exist has no lines.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):
                try:
                    data = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is no JSON: {error}") from None
                if not isinstance(data, dict):
                    raise ValueError(f"line {number} is {type(data).__name__}, no object")
                yield data


LEDGER = "trials.jsonl"


@dataclass
class History:
    """What a ledger tells."""

    trials: dict[int, Trial] = field(default_factory=dict)
    """By number; those that a dead driver left open are INTERRUPTED. Their configs are not in the ledger."""
    elapsed_s: float = 0.0
    """Wall clock of all sessions of the search so far."""
    device_s: float = 0.0
    """The same times the devices that were held."""
    card_s: Mapping[str, float] = field(default_factory=dict)
    """Device seconds by the card's name, as far as that was written down."""

    def unfinished(self) -> list[Trial]:
        """Return the trials that can go on, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if not trial.state.over]


class Ledger:
    """A TrialObserver that appends every event to a file.

    Raises:
        OSError: from any method, where the file cannot be written: a search that cannot be resumed must not go on.
    """

    def __init__(self, path: Path, metric: str, clock: Callable[[], float] = time.time) -> None:
        """Open the ledger; what it holds stays. `metric` is the objective's; `clock` gives seconds since 1970."""
        self._metric = metric
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        end_with_a_whole_line(path)
        self._file: BinaryIO = path.open("ab", buffering=0)

    def begin_session(self, machine: Mapping[str, str]) -> None:
        """Write down that a driver begins: trials that an earlier one left open were interrupted by then.

        Args:
            machine: what it trains on and with, in words by name.
        """
        self._append("session", None, machine=dict(machine))

    def on_start(self, trial: Trial) -> None:
        """Write down what was drawn; once more where a trial goes on."""
        drawn = {"params": dict(trial.params), "overrides": dict(trial.overrides), "config_hash": trial.config_hash}
        self._append("start", trial.number, **drawn)

    def on_report(self, trial: Trial) -> None:
        """Write down a report."""
        self._append("report", trial.number, metrics=trial.metrics, value=trial.metrics.get(self._metric))

    def on_end(self, trial: Trial) -> None:
        """Write down how the trial ended, and see that it is on the disk."""
        self._append("end", trial.number, state=str(trial.state), error=trial.error)
        os.fsync(self._file.fileno())

    def spent(self, elapsed_s: float, device_s: float, card_s: Mapping[str, float] = MappingProxyType({})) -> None:
        """Write down what all sessions so far have cost."""
        self._append("spent", None, elapsed_s=elapsed_s, device_s=device_s, card_s=dict(card_s))

    def started(self, start: Start) -> None:
        """Write down how the session started, as far as that is known; what is written later in a session counts."""
        self._append("started", None, shared=_rounded(start.shared),
                     gangs={gang: _rounded(stamps) for gang, stamps in start.gangs.items()})  # fmt: skip

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, event: str, number: int | None, **more: object) -> None:
        stamped = {"event": event, "trial": number, "time": round(self._clock(), 3), **more}
        line = json.dumps(stamped, separators=(",", ":")).encode() + b"\n"
        start = self._file.tell()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes of an event could be written")
        except OSError:
            os.ftruncate(self._file.fileno(), start)
            raise


def _rounded(stamps: Mapping[str, float]) -> dict[str, float]:
    return {name: round(stamp, 3) for name, stamp in dict(stamps).items()}  # a copy: another thread may add one


Follow = Callable[[Mapping[str, Any]], object]
"""Takes in the events of a ledger in turn."""


def read_ledger(path: Path, maximise: bool = True, also: Sequence[Follow] = ()) -> History:
    """Return what a ledger tells; an empty history where there is none. `maximise` decides which report is the best.

    Args:
        also: told of every event, too: a long ledger is read once.

    Raises:
        UsageError: it is not a ledger.
    """
    history = History()
    try:
        for event in json_lines(path):
            _follow(history, event, maximise)
            for follow in also:
                follow(event)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_ledger(path, error) from None
    for trial in history.unfinished():
        trial.state = TrialState.INTERRUPTED
    return history


def _no_ledger(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} must be the ledger of a run, it is not: {error}: take that line out, or put a copy of the file back; "
        "checkpoints and MLflow's records are as they were"
    )


def _follow(history: History, event: Mapping[str, Any], maximise: bool) -> None:
    trials = history.trials
    match event:
        case {"event": "session"}:
            pass
        case {"event": "started", "shared": dict(), "gangs": dict()}:
            Start.of(event)
        case {"event": "spent", "elapsed_s": int() | float() as elapsed_s, "device_s": int() | float() as device_s}:
            history.elapsed_s, history.device_s = elapsed_s, device_s
            history.card_s = _card_s(event)
        case {
            "event": "start", "trial": int(number), "params": dict(params), "overrides": dict(overrides),
            "config_hash": str(config_hash),
        }:  # fmt: skip
            trial = trials.setdefault(number, Trial(number, params, overrides, config_hash))
            trial.params, trial.overrides, trial.config_hash = params, overrides, config_hash
            trial.state, trial.error = TrialState.RUNNING, None
        case {
            "event": "report",
            "trial": int(number),
            "metrics": dict(metrics),
            "value": int() | float() | None as value,
        } if number in trials and all(isinstance(metric, int | float) for metric in metrics.values()):
            trials[number].take_in(metrics, value, maximise)
        case {"event": "end", "trial": int(number), "state": str(state), "error": str() | None as error} if (
            number in trials
        ):
            trials[number].state, trials[number].error = TrialState(state), error
        case _:
            raise ValueError(f"an event has another shape: {json.dumps(event)[:100]}")


def _card_s(event: Mapping[str, Any]) -> dict[str, float]:
    return {str(card): float(seconds) for card, seconds in dict(event.get("card_s", {})).items()}


class Span(NamedTuple):
    """A time during which a trial was trained. A trial that was interrupted has several."""

    trial: int
    start_s: float
    """Since the beginning, with the time between two sessions left out."""
    end_s: float
    state: str
    """How it ended; `INTERRUPTED` where nothing says so."""


class Times(NamedTuple):
    """When trials began and ended."""

    spans: Sequence[Span] = ()
    """In order of their beginnings."""
    sessions: Sequence[float] = ()
    """Seconds at which drivers began; the first one at 0."""
    began_unix: float | None = None
    """When the first driver began."""
    machine: Mapping[str, str] = MappingProxyType({})
    """What the last driver trained on and with, in words by name; empty where that was not written down."""
    card_s: Mapping[str, float] = MappingProxyType({})
    """Device seconds of all sessions by the card's name, as far as that was written down."""
    starts: Mapping[int, Start] = MappingProxyType({})
    """How sessions started, by their index in `sessions`, as far as that was written down."""


class Timeline:
    """The times in a ledger, event by event."""

    def __init__(self) -> None:
        self._spans, self._sessions = list[Span](), list[float]()
        self._running: dict[int, tuple[float, float]] = {}
        self._first = self._last = self._behind = 0.0
        self._machine: Mapping[str, str] = {}
        self._card_s: Mapping[str, float] = {}
        self._starts: dict[int, Start] = {}
        self._known = True

    def follow(self, event: Mapping[str, Any]) -> None:
        """Take in an event.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it has another shape.
        """
        self._known = self._known and "time" in event
        if not self._known:
            return
        kind, number, stamp, running = event["event"], event["trial"], float(event["time"]), self._running
        if not self._first:
            self._first = self._last = self._behind = stamp
        if kind == "session" or stamp < self._last:  # nobody worked, or the clock was set back
            self._behind += stamp - self._last
        self._last, now = stamp, stamp - self._behind
        if kind == "session":
            self._spans += self._open()
            running.clear()
            self._sessions.append(now)
            self._machine = {str(name): str(words) for name, words in event.get("machine", {}).items()}
        if kind == "started":
            self._starts[len(self._sessions) - 1] = Start.of(event)
        self._card_s = _card_s(event) or self._card_s
        if kind == "start":
            running.setdefault(number, (now, now))
        elif kind == "report" and number in running:
            running[number] = (running[number][0], now)
        elif kind == "end" and number in running:
            self._spans.append(Span(number, running.pop(number)[0], now, event["state"]))

    def times(self) -> Times:
        """Return the times of what was taken in; none where version 0.1 wrote it."""
        if not self._known:
            return Times()
        spans = sorted([*self._spans, *self._open()], key=lambda span: (span.start_s, span.trial))
        return Times(spans, self._sessions, self._first or None, self._machine, self._card_s, self._starts)

    def _open(self) -> list[Span]:
        return [Span(trial, start, end, "INTERRUPTED") for trial, (start, end) in self._running.items()]


def read_times(path: Path) -> Times:
    """Return the times that a ledger tells; none where there is no ledger, or where version 0.1 wrote it.

    Raises:
        UsageError: it is not a ledger.
    """
    timeline = Timeline()
    try:
        for event in json_lines(path):
            timeline.follow(event)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_ledger(path, error) from None
    return timeline.times()


class Clock:
    """Wall clock and device time of all sessions of a run."""

    def __init__(self, earlier: History, now: Callable[[], float] = time.monotonic) -> None:
        self._earlier, self._now = earlier, now
        self._held: Mapping[str, float] | None = None
        self._card_s = dict(earlier.card_s)
        self._unnamed_s = earlier.device_s - sum(self._card_s.values())
        self._start = self._since = now()

    def hold(self, cards: Mapping[str, float]) -> None:
        """Count these devices from now on, by name; those that are named first, from the beginning."""
        if self._held is not None:
            now = self._now()
            self._card_s, self._since = self._until(now), now
        self._held = dict(cards)

    @property
    def elapsed_s(self) -> float:
        """Wall clock of all sessions."""
        return self._earlier.elapsed_s + self._now() - self._start

    @property
    def device_s(self) -> float:
        """Devices held, times seconds."""
        return self._unnamed_s + sum(self.card_s.values())

    @property
    def card_s(self) -> Mapping[str, float]:
        """The same by the card's name, without what an earlier session did not name."""
        return self._until(self._now())

    def _until(self, now: float) -> dict[str, float]:
        held, seconds = self._held or {}, now - self._since
        return {card: self._card_s.get(card, 0.0) + held.get(card, 0.0) * seconds for card in {**self._card_s, **held}}
