"""A driver is told to end, or its Ray is killed under it: the books are closed, and the search can be resumed."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from books import Books, read_books
from drivers import start_driver
from mlflow import MlflowClient
from search_program import KINDS, search

from harness.ledger import LEDGER, read_ledger

pytestmark = pytest.mark.timeout(600)

INTERRUPTIONS = {"terminal closed", "SIGTERM to the group", "SIGTERM to all"}
IN_A_CONTAINER = "raylet killed in a container"
LOSSES = {"raylet killed": "raylet", IN_A_CONTAINER: "raylet", "gcs_server killed": "GCS"}
"""Faults of Ray, and what the driver calls what died."""
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh")
"""Makes the driver a child of process 1, and its shell that process."""


class End(NamedTuple):
    """How a driver ended."""

    fault: str
    code: int
    waited_s: float
    """From the fault to its end."""
    log: str
    books: Books
    storage: Path


ENDINGS = {"DashboardAgent killed", "RuntimeEnvAgent killed"}
"""Faults at which the raylet ends in order, and Ray may end the driver on the spot."""
ALIKE = {"SIGTERM to the group", "gcs_server killed", *ENDINGS}
"""Faults that take the way of another one, or happen to few."""
if os.geteuid() == 0 and shutil.which("unshare"):
    ALIKE.add("raylet killed")
else:
    del LOSSES[IN_A_CONTAINER]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(fault, marks=pytest.mark.long) if fault in ALIKE else fault
        for fault in sorted(INTERRUPTIONS | ENDINGS | LOSSES.keys())
    ],
)
def end(ray_here: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> End:
    fault, storage = request.param, tmp_path_factory.mktemp("lost")
    ours, theirs = pty.openpty() if fault == "terminal closed" else (None, None)
    driver = start_driver(storage, "lost", 1, step_s=0.5, address="local", terminal=theirs,
                          within=CONTAINER if fault == IN_A_CONTAINER else ())  # fmt: skip
    if theirs is not None:
        os.close(theirs)
    deadline = time.monotonic() + 240
    while not (steps := storage / "trial-0.steps").exists() or len(steps.read_text().split()) < 3:
        assert (driver.poll(), time.monotonic() < deadline) == (None, True), (storage / "driver.log").read_text()[
            -3000:
        ]
        time.sleep(0.1)
    began = time.monotonic()
    cause(fault, driver, ours)
    code = driver.wait(timeout=90)
    waited_s = time.monotonic() - began
    books = read_books(storage / "searches" / "lost", storage, f"sqlite:///{storage}/mlflow.db")
    return End(fault, code, waited_s, (storage / "driver.log").read_text(), books, storage)


def cause(fault: str, driver: subprocess.Popen[bytes], terminal: int | None) -> None:
    everyone = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    if terminal is not None:
        os.close(terminal)
    elif fault == "SIGTERM to the group":
        os.killpg(driver.pid, signal.SIGTERM)
    elif fault == "SIGTERM to all":
        for process in everyone:
            process.terminate()
    else:
        [victim] = [process for process in everyone if is_called(process, fault.split()[0])]
        victim.kill()


def is_called(process: psutil.Process, name: str) -> bool:
    """Return whether a process is a program, a module or one of Ray's agents of this name."""
    words = process.cmdline()
    names = {Path(process.exe()).name, words[0].removeprefix("ray::"), *(Path(word).name for word in words[1:])}
    return name in names or f"{name}.py" in names


def test_the_driver_ends_by_itself_as_by_ctrl_c_or_as_a_failure(end: End) -> None:
    assert end.code == (-signal.SIGINT if end.fault in INTERRUPTIONS else 1)
    assert end.waited_s < 45.0  # Ray ends a driver without a GCS after 60


def test_nothing_is_left_running_and_no_trial_is_lost(end: End) -> None:
    books = (end.books.ledger, end.books.optuna, end.books.mlflow, end.books.mlflow_parents)
    parent = "KILLED" if end.fault in INTERRUPTIONS else "FAILED"
    if end.fault in ENDINGS:
        assert {*end.books.ledger, *end.books.optuna} <= {"RUNNING", "INTERRUPTED", "WAITING"}
    else:
        assert books == (["INTERRUPTED"], ["WAITING"], ["KILLED"], [parent])


def test_one_line_says_what_died_and_one_how_to_go_on(end: End) -> None:
    lines = [line for line in end.log.splitlines() if line.startswith(("failed: ", "once that is mended, go on with "))]
    if end.fault in LOSSES:
        assert len(lines) == 2, end.log[-3000:]
        assert lines[0].startswith(f"failed: Ray's {LOSSES[end.fault]} at ")
    elif end.fault not in ENDINGS:
        assert lines == []


def test_the_search_goes_on_at_most_two_steps_earlier(end: End) -> None:
    """That is one interval, here one step, and the step that was under way."""
    search(end.storage, end.storage, "lost", 1)
    books = read_books(end.storage / "searches" / "lost", end.storage, f"sqlite:///{end.storage}/mlflow.db")
    assert (books.ledger, books.optuna, books.mlflow) == (["COMPLETE"], ["COMPLETE"], ["FINISHED"])
    assert books.mlflow_parents == ["FINISHED"]
    saved = end.fault in INTERRUPTIONS - {"SIGTERM to all"}
    assert books.repeated("trial-0") <= (0 if saved else 2)


def statuses(storage: Path) -> tuple[list[str], list[str]]:
    """Return the states in the ledger, and the statuses in MLflow, of a run that is no search."""
    trials = read_ledger(storage / "searches" / "lost" / LEDGER).trials
    runs = MlflowClient(f"sqlite:///{storage}/mlflow.db").search_runs(["1"])
    return [str(trial.state) for trial in trials.values()], sorted(run.info.status for run in runs)


@pytest.mark.parametrize(
    ("kind", "lost", "whole"),
    [
        pytest.param("train", ["KILLED"], ["FINISHED"], marks=pytest.mark.long),
        ("ablate", ["FAILED", "KILLED"], ["FINISHED"] * 5),  # the parent, two runs, two variants
    ],
)
def test_a_training_and_an_ablation_whose_ray_is_killed_close_their_books_and_go_on(
    ray_here: None, kind: str, lost: list[str], whole: list[str], tmp_path: Path
) -> None:
    driver = start_driver(tmp_path, "lost", 2, step_s=0.5, address="local", kind=kind,
                          within=CONTAINER if IN_A_CONTAINER in LOSSES else ())  # fmt: skip
    ledger, log, deadline = tmp_path / "searches" / "lost" / LEDGER, tmp_path / "driver.log", time.monotonic() + 240
    while not ledger.exists() or ledger.read_text().count('"event":"report"') < 3:
        assert (driver.poll(), time.monotonic() < deadline) == (None, True), log.read_text()[-3000:]
        time.sleep(0.1)
    cause("raylet killed", driver, None)
    assert driver.wait(timeout=90) == 1
    said = [line for line in log.read_text().splitlines() if line.startswith(("failed: Ray's raylet", "once that is"))]
    assert len(said) == 2, log.read_text()[-3000:]
    assert statuses(tmp_path) == (["INTERRUPTED"], lost)
    KINDS[kind](tmp_path, tmp_path, "lost", 2)
    assert statuses(tmp_path) == (["COMPLETE"] * (1 if kind == "train" else 2), whole)
