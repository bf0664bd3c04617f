"""A driver is killed at random moments of its search, again and again, then let go on to the end."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from books import Books, read_books
from drivers import start_driver

pytestmark = pytest.mark.timeout(900)

NAME = "killed"


class Kills(NamedTuple):
    number: int
    trials: int
    """Of the search."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(Kills(3, 8), id="3"), pytest.param(Kills(10, 24), id="10", marks=pytest.mark.long)],
)
def kills(request: pytest.FixtureRequest) -> Kills:
    chosen: Kills = request.param
    return chosen


@pytest.fixture(scope="module")
def storage(kills: Kills, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def seen(ray_here: None, kills: Kills, storage: Path) -> list[dict[str, int]]:
    """Kill and resume; return how many steps each trial had been trained at each kill."""
    moments, counts = random.Random(0), []
    for _ in range(kills.number):
        driver = start_driver(storage, NAME, kills.trials)
        try:
            _wait_for_progress(storage, driver)
            time.sleep(moments.uniform(0.0, 1.5))
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        counts.append({path.stem: len(path.read_text().split()) for path in storage.glob("*.steps")})
    driver = start_driver(storage, NAME, kills.trials)
    assert driver.wait(timeout=300) == 0, (storage / "driver.log").read_text()[-3000:]
    return counts


@pytest.fixture(scope="module")
def books(seen: list[dict[str, int]], storage: Path) -> Books:
    return read_books(storage / "searches" / NAME, storage, f"sqlite:///{storage}/mlflow.db")


def test_the_kills_came_at_different_moments_of_the_search(kills: Kills, seen: list[dict[str, int]]) -> None:
    assert len({sum(count.values()) for count in seen}) == kills.number


def test_there_are_as_many_trials_as_were_asked_for(kills: Kills, books: Books) -> None:
    assert (len(books.ledger), len(books.optuna), len(books.mlflow)) == (kills.trials,) * 3


def test_no_trial_is_lost(books: Books) -> None:
    assert set(books.ledger) == {"COMPLETE", "PRUNED"}


def test_nothing_is_left_running_anywhere(books: Books) -> None:
    assert "RUNNING" not in {*books.ledger, *books.optuna, *books.mlflow, *books.mlflow_parents}


def test_the_books_agree(books: Books) -> None:
    statuses = ["FINISHED" if state == "COMPLETE" else "KILLED" for state in books.ledger]
    assert (books.optuna, books.mlflow) == (books.ledger, statuses)


def test_one_parent_run_is_there(books: Books) -> None:
    assert books.mlflow_parents == ["FINISHED"]


def test_a_kill_costs_each_running_trial_a_checkpoint_interval_and_the_step_under_way(
    kills: Kills, books: Books
) -> None:
    assert sum(books.repeated(name) for name in books.steps) <= 2 * kills.number


def _wait_for_progress(storage: Path, driver: object, patience_s: float = 120.0) -> None:
    """Wait until this session has trained a step."""
    before = _steps(storage)
    deadline = time.monotonic() + patience_s
    while _steps(storage) == before:
        assert time.monotonic() < deadline, (storage / "driver.log").read_text()[-3000:]
        time.sleep(0.02)


def _steps(storage: Path) -> int:
    return sum(len(path.read_text().split()) for path in storage.glob("*.steps"))
