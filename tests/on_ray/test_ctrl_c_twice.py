"""A second Ctrl-C or SIGTERM ends a driver that still waits for its trials; the search can be resumed all the same."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from books import Books, read_books
from drivers import start_driver

pytestmark = pytest.mark.timeout(600)
TRIALS = 3


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGINT, id="Ctrl-C", marks=pytest.mark.long),
    ],
)
def number(request: pytest.FixtureRequest) -> signal.Signals:
    chosen: signal.Signals = request.param
    return chosen


@pytest.fixture(scope="module")
def storage(number: signal.Signals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("twice")


@pytest.fixture(scope="module")
def waited_s(ray_here: None, number: signal.Signals, storage: Path) -> float:
    """Interrupt twice while a step of a minute is under way; return how long the driver took to end."""
    log = storage / "driver.log"
    driver = start_driver(storage, "twice", TRIALS, step_s=60.0)
    deadline = time.monotonic() + 120
    while (
        not (storage / "searches" / "twice" / "trials.jsonl").exists()
        or b"start" not in (storage / "searches" / "twice" / "trials.jsonl").read_bytes()
    ):
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)
    time.sleep(8.0)  # the gang has begun its first step
    driver.send_signal(number)
    time.sleep(1.0)
    assert driver.poll() is None, "one signal waits for the step"
    driver.send_signal(number)
    began = time.monotonic()
    driver.wait(timeout=60)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def books(waited_s: float, storage: Path) -> Books:
    driver = start_driver(storage, "twice", TRIALS)
    assert driver.wait(timeout=200) == 0, (storage / "driver.log").read_text()[-3000:]
    return read_books(storage / "searches" / "twice", storage, f"sqlite:///{storage}/mlflow.db")


def test_the_second_signal_does_not_wait_for_the_step(waited_s: float) -> None:
    assert waited_s < 45.0  # the step takes 60


def test_the_search_goes_on_to_its_end(books: Books) -> None:
    assert (len(books.ledger), set(books.ledger) <= {"COMPLETE", "PRUNED"}) == (TRIALS, True)


def test_the_books_agree(books: Books) -> None:
    assert books.optuna == books.ledger
    assert "RUNNING" not in {*books.mlflow, *books.mlflow_parents}
