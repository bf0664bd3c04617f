"""A driver is killed at one of its writes after the other, a search long, then let go on to the end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from books import Books, read_books
from drivers import start_driver

pytestmark = pytest.mark.timeout(1800)

NAME = "killed"
SOME = ("optuna.journal:3", "trials.jsonl:6", "outbox.jsonl:15", "results.json:0")
"""Writes at which the driver dies, a session each, counted from the session's start."""
MANY = tuple(
    f"{file}:{number}"
    for number in (0, 1, 2, 4, 7, 11)
    for file in ("trials.jsonl", "optuna.journal", "optuna.journal.lock", "outbox.jsonl", "outbox.jsonl.done")
)


class Kills(NamedTuple):
    at: tuple[str, ...]
    trials: int
    """Of the search."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(Kills(SOME, 4), id="4"), pytest.param(Kills(MANY, 40), id="30", marks=pytest.mark.long)],
)
def kills(request: pytest.FixtureRequest) -> Kills:
    chosen: Kills = request.param
    return chosen


@pytest.fixture(scope="module")
def storage(kills: Kills, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def books(ray_here: None, kills: Kills, storage: Path) -> Books:
    """Kill and resume, go on to the end, and read what is left."""
    for at in kills.at:
        driver = start_driver(storage, NAME, kills.trials, dies_at=at)
        assert driver.wait(timeout=120) == -signal.SIGKILL, f"{at}: {(storage / 'driver.log').read_text()[-3000:]}"
    driver = start_driver(storage, NAME, kills.trials)
    assert driver.wait(timeout=300) == 0, (storage / "driver.log").read_text()[-3000:]
    return read_books(storage / "searches" / NAME, storage, f"sqlite:///{storage}/mlflow.db")


def test_there_are_as_many_trials_as_were_asked_for(kills: Kills, books: Books) -> None:
    assert (len(books.ledger), len(books.optuna), len(books.mlflow)) == (kills.trials,) * 3


def test_no_trial_is_lost(books: Books) -> None:
    assert set(books.ledger) <= {"COMPLETE", "PRUNED"}


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
    assert sum(books.repeated(name) for name in books.steps) <= 2 * len(kills.at)
