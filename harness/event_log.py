"""Append-only logs of a run: the ledger of its trials, and the outbox of what MLflow is to be told."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, Self

from harness.run_folder import HeldError, Lock, put_aside, write_whole
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


class Timeline:
    """The times in a ledger, event by event."""

    def __init__(self) -> None:
        self._spans, self._sessions = list[Span](), list[float]()
        self._running: dict[int, tuple[float, float]] = {}
        self._first = self._last = self._behind = 0.0
        self._machine: Mapping[str, str] = {}
        self._card_s: Mapping[str, float] = {}
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
        return Times(spans, self._sessions, self._first or None, self._machine, self._card_s)

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
