"""Two drivers work on one study; one is killed in the middle, and goes on when the other one has ended."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from books import Books, read_books
from drivers import start_driver

from harness.ledger import LEDGER, read_ledger
from harness.tracking.stores import connect_client
from harness.tuning.marks import own_trials
from harness.tuning.shared import Shared

pytestmark = pytest.mark.timeout(600)

TRIALS = 8


@pytest.fixture(scope="module")
def storage(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Search with two drivers, kill one while it trains, let the other one end, and let the first one go on."""
    storage = tmp_path_factory.mktemp("shared")
    connect_client(
        f"sqlite:///{storage}/mlflow.db"
    ).search_experiments()  # of two that make its tables at once one fails
    drivers = {name: start_driver(storage, name, TRIALS, kind="shared", log=storage / f"{name}.log") for name in "ab"}
    deadline = time.monotonic() + 200
    while len(read_ledger(storage / "searches" / "a" / LEDGER).trials) < 3:
        assert time.monotonic() < deadline, (storage / "a.log").read_text()[-3000:]
        time.sleep(0.1)
    drivers["a"].send_signal(signal.SIGKILL)
    assert drivers["a"].wait(timeout=20) == -signal.SIGKILL
    assert drivers["b"].wait(timeout=300) == 0, (storage / "b.log").read_text()[-3000:]
    again = start_driver(storage, "a", TRIALS, kind="shared", log=storage / "a.log")
    assert again.wait(timeout=300) == 0, (storage / "a.log").read_text()[-3000:]
    return storage


@pytest.fixture(scope="module")
def books(storage: Path) -> dict[str, Books]:
    return {name: read_books(storage / "searches" / name, storage, f"sqlite:///{storage}/mlflow.db") for name in "ab"}


def trials_of_the_study(storage: Path) -> list[optuna.trial.FrozenTrial]:
    study = Shared(f"sqlite:///{storage}/study.db", "both", "").found()
    assert study is not None
    return own_trials(study)


def test_the_ledgers_together_are_the_study(storage: Path) -> None:
    trials = [(number, str(trial.state)) for name in "ab"
              for number, trial in read_ledger(storage / "searches" / name / LEDGER).trials.items()]  # fmt: skip
    assert sorted(trials) == [(trial.number, trial.state.name) for trial in trials_of_the_study(storage)]
    assert [number for number, _ in sorted(trials)] == list(range(TRIALS))


def test_no_trial_is_lost(storage: Path) -> None:
    assert {trial.state.name for trial in trials_of_the_study(storage)} <= {"COMPLETE", "PRUNED"}


def test_the_kill_costs_a_checkpoint_interval_and_the_step_under_way(books: dict[str, Books]) -> None:
    steps = books["a"].steps
    assert len(steps) == TRIALS
    assert sum(books["a"].repeated(name) for name in steps) <= 2


def test_each_trial_has_a_run_below_that_of_its_own_driver(books: dict[str, Books]) -> None:
    for name in "ab":
        assert Counter(books[name].mlflow) == Counter(
            "FINISHED" if state == "COMPLETE" else "KILLED" for state in books[name].ledger
        )
        assert books[name].mlflow_parents == ["FINISHED"]


def test_both_say_what_the_whole_study_has(storage: Path) -> None:
    for name in "ab":
        share = len(read_ledger(storage / "searches" / name / LEDGER).trials)
        assert f"/study.db has {TRIALS} trials, {share} of this driver" in (storage / f"{name}.log").read_text()
