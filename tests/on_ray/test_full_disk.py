"""The disk of a search fills up, in a small file system of memory; room is made; the search goes on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from books import Books, read_books
from drivers import start_driver

TRIALS = 4
SIZE_MIB = 24
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system must be mounted, mount says {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def words(ray_here: None, disk: Path, marks: Path) -> str:
    """Fill the disk while trials run, wait for the driver's end, make room, resume; return the first driver's words."""
    log = marks / "driver.log"
    driver = start_driver(disk, "full", TRIALS, step_s=0.3, log=log, marks=marks)
    deadline = time.monotonic() + 120
    while not list(marks.glob("*.steps")):
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    time.sleep(1.0)
    ballast, deadline = disk / "ballast", time.monotonic() + 120
    while driver.poll() is None and time.monotonic() < deadline:
        _fill(ballast)  # again and again: databases give pages back that they took for a moment
        time.sleep(0.05)
    assert driver.wait(timeout=60) == 0, log.read_text()[-3000:]
    said = log.read_text()
    ballast.unlink()
    driver = start_driver(disk, "full", TRIALS, log=log, marks=marks)
    assert driver.wait(timeout=200) == 0, log.read_text()[-3000:]
    return said


@pytest.fixture(scope="module")
def books(words: str, disk: Path, marks: Path) -> Books:
    return read_books(disk / "searches" / "full", marks, f"sqlite:///{disk}/mlflow.db")


def test_the_search_says_that_the_disk_is_full_and_what_to_do(words: str) -> None:
    assert "is full: free some and resume" in words


def test_no_trial_is_lost(books: Books) -> None:
    assert (len(books.ledger), set(books.ledger) <= {"COMPLETE", "PRUNED"}) == (TRIALS, True)


def test_only_an_interval_is_trained_twice(books: Books) -> None:
    assert sum(books.repeated(name) for name in books.steps) <= 2


def test_nothing_is_left_running(books: Books) -> None:
    assert "RUNNING" not in {*books.ledger, *books.optuna, *books.mlflow, *books.mlflow_parents}


def test_the_books_agree(books: Books) -> None:
    assert books.optuna == books.ledger


def _fill(path: Path) -> None:
    """Write until not a byte more fits."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            while True:
                try:
                    if file.write(b"\0" * size) < size:
                        break
                except OSError:
                    break
