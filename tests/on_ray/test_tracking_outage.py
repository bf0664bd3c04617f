"""A tracking server goes away while a search runs, and comes back while it runs or after its end: nothing is lost."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from analytic import Analytic, Script, Witness, plan_of
from books import Books, read_books
from mlflow import MlflowClient

from harness.tracking.recorder import Delivery, MlflowRecorder, replay
from harness.trials import Trial

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from tracking_server import Server

pytestmark = pytest.mark.timeout(600)
TRIALS = 4


class Outage(Witness):
    """Ends the server at a report of the first trial."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def on_report(self, trial: Trial) -> None:
        super().on_report(trial)
        if (trial.number, trial.step) == (0, 5):
            self._server.kill()


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
    server.kill()


@pytest.fixture(scope="module")
def outcome(ray_here: None, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    storage = tmp_path_factory.mktemp("outage")
    plan = plan_of(storage / "outage", trials=TRIALS, grace_steps=1, scheduler="none")
    witness = Outage(server)
    outbox = plan.folder / "outbox.jsonl"
    recorder = MlflowRecorder(server.uri, "s4", "search", "outage", {}, outbox)
    plan.run(Analytic(storage), Script([{"name": str(number)} for number in range(TRIALS)]), [recorder, witness])
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


DOWN_S = 8.0
"""Longer than several reports take."""


class ShortOutage(Outage):
    """Starts the server again from a thread while the search goes on; the last trial begins when it is back."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.while_down = 0
        self._restart = threading.Thread(target=self._bring_back)

    def on_start(self, trial: Trial) -> None:
        super().on_start(trial)
        if trial.number == TRIALS - 1:
            self._restart.join()

    def on_report(self, trial: Trial) -> None:
        super().on_report(trial)
        if (trial.number, trial.step) == (0, 5):
            self._restart.start()
        self.while_down += self._restart.is_alive()

    def _bring_back(self) -> None:
        time.sleep(DOWN_S)
        self._server.start()


@dataclass
class ShortOutcome:
    delivery: Delivery
    witness: ShortOutage
    books: Books
    histories: dict[str, list[int]]
    """Steps of the objective in MLflow, by the name of the run."""


@pytest.fixture(scope="module")
def short(ray_here: None, outcome: Outcome, server: Server, tmp_path_factory: pytest.TempPathFactory) -> ShortOutcome:
    storage = tmp_path_factory.mktemp("short")
    plan = plan_of(storage / "short", trials=TRIALS, grace_steps=1, scheduler="none")
    witness = ShortOutage(server)
    recorder = MlflowRecorder(server.uri, "s4", "search", "short", {}, plan.folder / "outbox.jsonl")
    script = Script([{"name": str(number)} for number in range(TRIALS)])
    plan.run(Analytic(storage, step_s=0.5), script, [recorder, witness])
    delivery = recorder.close(timeout_s=120.0)
    client = MlflowClient(server.uri)
    runs = client.search_runs([client.get_experiment_by_name("s4").experiment_id], "tags.`s4.search` = 'short'")
    histories = {
        run.info.run_name: [point.step for point in client.get_metric_history(run.info.run_id, "dev/miou")]
        for run in runs
    }
    return ShortOutcome(delivery, witness, read_books(plan.folder, storage, server.uri), histories)


def test_reports_go_on_while_the_server_is_down_for_a_while(short: ShortOutcome) -> None:
    assert short.witness.while_down > 3
    assert short.books.ledger == ["COMPLETE"] * TRIALS


def test_a_server_that_comes_back_gets_everything_without_being_asked(short: ShortOutcome) -> None:
    assert (short.delivery.pending, short.delivery.rejected, short.delivery.note) == (0, 0, None)
    assert short.books.mlflow == ["FINISHED"] * TRIALS
    assert short.books.mlflow_parents == ["FINISHED"]


def test_no_report_is_missing_or_there_twice_after_the_server_was_away(short: ShortOutcome) -> None:
    assert short.histories == {"short": []} | {f"trial-{number:03d}": list(range(1, 10)) for number in range(TRIALS)}
