"""A tracking server goes away while a search runs, and comes back after the search's end: nothing is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from analytic import Analytic, Script, Witness
from books import Books, read_books

from harness.search.run import SearchPlan, run_search
from harness.tracking.recorder import Delivery, MlflowRecorder, replay
from harness.trials import Trial

pytestmark = pytest.mark.timeout(600)
TRIALS = 4


class Server:
    """An MLflow server with a SQLite store."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = f"sqlite:///{self._folder}/mlflow.db"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--artifacts-destination",
             str(self._folder / "artifacts"), "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()  # noqa: S310  # our own
                return
            except OSError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.3)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Outage(Witness):
    """Ends the server at a report of the first trial."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def on_report(self, trial: Trial) -> None:
        super().on_report(trial)
        if (trial.number, trial.step) == (0, 5):
            self._server.stop()


@dataclass
class Outcome:
    delivery: Delivery
    replayed: Delivery
    witness: Witness
    books: Books


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def outcome(ray_here: None, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    storage = tmp_path_factory.mktemp("outage")
    plan = SearchPlan(name="outage", storage=storage, trials=TRIALS, grace_steps=1, scheduler="none")
    witness = Outage(server)
    outbox = plan.folder / "outbox.jsonl"
    recorder = MlflowRecorder(server.uri, "s4", "search", "outage", {}, outbox)
    run_search(
        plan, Analytic(storage), Script([{"name": str(number)} for number in range(TRIALS)]), [recorder, witness]
    )
    delivery = recorder.close(timeout_s=2.0)
    server.start()
    replayed = replay(outbox, server.uri)
    return Outcome(delivery, replayed, witness, read_books(plan.folder, storage, server.uri))


def test_the_search_does_not_wait_for_the_server(outcome: Outcome) -> None:
    costs = [report["overhead/report_s"] for number in (1, 2, 3) for report in outcome.witness.reports[number][1:]]
    assert len(costs) == 3 * 8
    assert outcome.books.ledger == ["COMPLETE"] * TRIALS


def test_the_user_is_told_what_is_pending(outcome: Outcome) -> None:
    assert outcome.delivery.pending > 0
    assert "kept in" in str(outcome.delivery.note)


def test_everything_arrives_once_the_server_is_back(outcome: Outcome) -> None:
    assert outcome.replayed.pending == 0
    assert outcome.books.mlflow == ["FINISHED"] * TRIALS


def test_the_parent_is_finished_and_there_is_one(outcome: Outcome) -> None:
    assert outcome.books.mlflow_parents == ["FINISHED"]
