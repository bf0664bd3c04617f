"""What recording a search costs: its driver, and MLflow.

    python tests/benchmarks/bench_recorder.py
    python tests/benchmarks/bench_recorder.py --trials 100 --json

A search is played without Ray: trials of 20 reports with 12 metrics, 8 at a time, with the params of `digits_css`. It
is recorded in a SQLite file and on an MLflow server of one worker on this machine, each in two ways: a few trials at a
stated pace, as a search would, and all of them while MLflow cannot be reached, which are then sent as `s4 sync` does.
The server is also killed for a while during a search at the pace, and brought back. With `--stores` also in a database
of PostgreSQL (`postgres`) and on a server over one (`postgres-server`), where that is installed.

    report_us            the driver's time in `on_report`, median and 99th percentile
    lag_ms               from `on_report` until MLflow has it, at the stated pace
    requests_per_report  requests (SQLite: calls of the client) of the whole search by its reports
    sync_s               to send all trials
    search_s             to read all runs of the search back, by the tag `s4.search`
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from postgres import Postgres
from tracking_server import Server

from harness.tracking.outbox import Outbox
from harness.tracking.recorder import MlflowRecorder, replay
from harness.tracking.stores import connect_client, find_runs
from harness.trials import Trial, TrialState
from trainers.presets import load_preset

Figures = dict[str, Any]

AT_A_TIME = 8
METRICS = 12
EVERY = 50
"""Steps a report."""
NOWHERE = "http://127.0.0.1:1"
NAME = "bench"


class Size(NamedTuple):
    """Of the search that is played."""

    trials: int
    reports: int
    paced_trials: int
    pace: float
    """Reports a second."""
    outage_s: float = 60.0
    """How long the server stays away, its start not counted."""


class Counter:
    """Counts requests to a server, or calls of a client where there is none."""

    def __init__(self) -> None:
        self.requests = 0

    @contextmanager
    def watching(self, uri: str) -> Iterator[None]:
        """Count within."""
        import requests
        from mlflow import MlflowClient

        owner: Any = requests.Session if uri.startswith("http") else MlflowClient
        names = ("send",) if uri.startswith("http") else CLIENT_CALLS
        with _patched(owner, names, self._count):
            yield

    def _count(self) -> None:
        self.requests += 1


CLIENT_CALLS = (
    "get_experiment_by_name", "create_experiment", "search_runs", "create_run", "get_run", "update_run", "log_batch",
    "set_terminated", "log_text", "log_artifact", "log_inputs",
)  # fmt: skip


@contextmanager
def _patched(owner: Any, names: Sequence[str], called: Any) -> Iterator[None]:
    if not names:
        yield
        return
    method = getattr(owner, names[0])

    def counting(self: object, *args: object, **kwargs: object) -> Any:
        called()
        return method(self, *args, **kwargs)

    with patch.object(owner, names[0], counting), _patched(owner, names[1:], called):
        yield


class Lags:
    """Seconds from each operation's writing until it is noted as applied."""

    def __init__(self, outbox: Outbox) -> None:
        self.seconds: list[float] = []
        self._sent: list[float] = []
        self._append, self._note = outbox.append, outbox.mark_done
        outbox.append, outbox.mark_done = self.append, self.mark_done  # type: ignore[method-assign]

    def append(self, operation: dict[str, Any]) -> int:
        self._sent.append(time.perf_counter())
        return self._append(operation)

    def mark_done(self, count: int) -> None:
        self._note(count)
        now = time.perf_counter()
        self.seconds.extend(now - sent for sent in self._sent[len(self.seconds) : count])


def play(
    recorder: MlflowRecorder, trials: int, reports: int, pace: float | None = None, at: list[float] | None = None
) -> list[float]:
    """Play a search, at most `pace` reports a second, and return the seconds that each `on_report` took.

    Each of the places where trials run begins a little after the one before, and takes the next trial when one ends.
    `at` gets the moments at which they began.
    """
    places = [_trials(place, trials) for place in range(AT_A_TIME)]
    running: list[Trial | None] = [None] * AT_A_TIME
    taken: list[float] = []
    started, turn = time.perf_counter(), 0
    while turn < AT_A_TIME or any(running):
        for place in range(min(AT_A_TIME, turn // max(1, reports // AT_A_TIME) + 1)):
            trial = running[place]
            if trial is None:
                trial = running[place] = next(places[place], None)
                if trial is None:
                    continue
                recorder.on_start(trial)
            step = trial.step + EVERY
            _take_in(trial, step, step / (EVERY * reports))
            before = time.perf_counter()
            recorder.on_report(trial)
            taken.append(time.perf_counter() - before)
            if at is not None:
                at.append(before)
            if pace is not None:
                time.sleep(max(0.0, started + len(taken) / pace - time.perf_counter()))
            if step == EVERY * reports:
                trial.state = TrialState.COMPLETE
                recorder.on_end(trial)
                running[place] = None
        turn += 1
    return taken


def _trials(place: int, trials: int) -> Iterator[Trial]:
    config = load_preset("digits_css").model_dump(mode="json")
    for number in range(place, trials, AT_A_TIME):
        yield Trial(number, {}, {}, f"hash{number}", {**config, "seed": number})


def _take_in(trial: Trial, step: int, share: float) -> None:
    value = share * (1 - 1 / (2 + trial.number % 7))
    metrics = {f"loss/part{index}": value * index for index in range(METRICS - 1)}
    trial.take_in({"step": step, "dev/miou": value, **metrics}, value)


def paced(uri: str, folder: Path, size: Size) -> Figures:
    """Record a few trials at the pace, and say how far MLflow is behind."""
    counter = Counter()
    with counter.watching(uri):
        recorder = MlflowRecorder(uri, "paced", "search", NAME, {}, folder / "paced" / "outbox.jsonl")
        lags = Lags(recorder._outbox)
        while recorder._outbox.done() == 0:  # MLflow is imported, which a search waits for but once
            time.sleep(0.05)
        counter.requests = 0
        taken = play(recorder, size.paced_trials, size.reports, size.pace)
        delivery = recorder.close(timeout_s=600)
    assert (delivery.pending, delivery.rejected) == (0, 0), delivery
    behind = sorted(lags.seconds[1:])
    return {
        "pace_reports_per_s": size.pace,
        "report_us": _spread(taken),
        "lag_ms": {"median": 1e3 * statistics.median(behind), "p99": 1e3 * _p99(behind), "max": 1e3 * behind[-1]},
        "requests_per_report": counter.requests / len(taken),
    }


def all_at_once(uri: str, folder: Path, size: Size) -> Figures:
    """Record all trials while MLflow cannot be reached, send them, and read them back."""
    outbox = folder / "backlog" / "outbox.jsonl"
    with patch("harness.tracking.recorder.connect_client", side_effect=ConnectionError("nobody is there")):
        recorder = MlflowRecorder(NOWHERE, "backlog", "search", NAME, {}, outbox)
        taken = play(recorder, size.trials, size.reports)
        recorder.close(timeout_s=0)
    counter, started = Counter(), time.perf_counter()
    with counter.watching(uri):
        delivery = replay(outbox, uri, timeout_s=24 * 3600)
    sync_s = time.perf_counter() - started
    assert (delivery.pending, delivery.rejected) == (0, 0), delivery
    client = connect_client(uri)
    experiment = client.get_experiment_by_name("backlog").experiment_id
    started = time.perf_counter()
    runs = sum(1 for _ in find_runs(client, experiment, f"tags.`s4.search` = '{NAME}'"))
    search_s = time.perf_counter() - started
    assert runs == size.trials + 1
    return {
        "report_us": _spread(taken),
        "outbox_mb": outbox.stat().st_size / 1e6,
        "sync_s": sync_s,
        "sync_reports_per_s": len(taken) / sync_s,
        "requests_per_report": counter.requests / len(taken),
        "search_s": search_s,
    }


def outage(server: Server, folder: Path, size: Size) -> Figures:
    """Kill the server while a search is recorded at the pace, and bring it back while it goes on."""
    recorder = MlflowRecorder(server.uri, "outage", "search", NAME, {}, folder / "outage" / "outbox.jsonl")
    while recorder._outbox.done() == 0:
        time.sleep(0.05)
    lasts = size.paced_trials * size.reports / size.pace
    moments: list[float] = []

    def interrupt() -> None:
        time.sleep(min(lasts / 4, 30.0))
        server.kill()
        moments.append(time.perf_counter())
        time.sleep(size.outage_s)
        server.start()
        moments.append(time.perf_counter())

    thread = threading.Thread(target=interrupt)
    thread.start()
    at: list[float] = []
    taken = play(recorder, size.paced_trials, size.reports, size.pace, at)
    thread.join()
    delivery = recorder.close(timeout_s=600)
    assert (delivery.pending, delivery.rejected) == (0, 0), delivery
    killed, back = moments
    down = [seconds for when, seconds in zip(at, taken, strict=True) if killed < when < back]
    up = [seconds for when, seconds in zip(at, taken, strict=True) if not killed < when < back]
    return {
        "down_s": back - killed,
        "reports_while_down": len(down),
        "report_us_up": _spread(up),
        "report_us_down": _spread(down) if down else None,
    }


def measure(size: Size, stores: Sequence[str]) -> Figures:
    """Measure with each store, in folders that are gone afterwards."""
    found: Figures = {**size._asdict(), "at_a_time": AT_A_TIME, "metrics": METRICS}
    for store in stores:
        with tempfile.TemporaryDirectory() as folder:
            database = Postgres(Path(folder) / "postgres") if store.startswith("postgres") else None
            uri, server = f"sqlite:///{folder}/mlflow.db", None
            try:
                if database:
                    Path(folder).chmod(0o711)  # PostgreSQL may be another user's
                    database.start()
                    uri = database.database("mlflow")
                if store.endswith("server"):
                    server = Server(Path(folder), store=uri)
                    uri = server.uri
                if server:
                    server.start()
                connect_client(uri).search_experiments()  # makes the tables, for that takes seconds
                found[store] = {
                    "paced": paced(uri, Path(folder), size),
                    "backlog": all_at_once(uri, Path(folder), size),
                }
                if server:
                    found[store]["outage"] = outage(server, Path(folder), size)
            finally:
                if server:
                    server.kill()
                if database:
                    database.end()
    return found


def _spread(seconds: Sequence[float]) -> Figures:
    return {"median": 1e6 * statistics.median(seconds), "p99": 1e6 * _p99(sorted(seconds))}


def _p99(ordered: Sequence[float]) -> float:
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--reports", type=int, default=20, help="of each trial")
    parser.add_argument("--paced-trials", type=int, default=100)
    parser.add_argument("--pace", type=float, default=20.0, help="reports a second, of all trials together")
    parser.add_argument("--outage-s", type=float, default=60.0)
    parser.add_argument("--stores", default="sqlite,server", help="also postgres and postgres-server")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    size = Size(options.trials, options.reports, options.paced_trials, options.pace, options.outage_s)
    found = measure(size, options.stores.split(","))
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
