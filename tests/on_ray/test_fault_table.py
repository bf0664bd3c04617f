"""One gang, one search, a fault in every trial but the first and the last: what each fault costs.

The rows of the fault table in harness/gangs/README.md that need no dead driver are made here.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import pytest
from analytic import MISBEHAVE_AT, Analytic, Script, Witness
from books import Books, read_books
from processes import left_of_a_search, pids_of, wait_for_end

from harness import api
from harness.trials import Trial

pytestmark = pytest.mark.timeout(600)

FAULTS = [
    "none",
    "raise",
    "report nan",
    "run out of memory",
    "hang once",
    "break the device",
    "kill once",
    "spoil the checkpoint once",
    "the controller is killed",
    "the Dispatcher is killed",
    "none again",
]
FAIL = {"raise", "report nan", "run out of memory", "break the device"}
"""Faults of the trial itself; every other one is survived."""
PROCESSES = {"the controller is killed": "Controllers", "the Dispatcher is killed": "Dispatcher"}


class Saboteur(Witness):
    """Kills processes of Ray when their trial reports."""

    def on_report(self, trial: Trial) -> None:
        super().on_report(trial)
        process = PROCESSES.get(FAULTS[trial.number])
        if process is not None and trial.step == MISBEHAVE_AT:
            for pid in pids_of(process):
                os.kill(pid, signal.SIGKILL)
            if process == "Controllers":  # Ray ends its workers, too, some time later: not in the next trial
                wait_for_end(int(trial.metrics["pid"]))


@dataclass
class Search:
    trials: list[Trial]
    witness: Witness
    books: Books


@pytest.fixture(scope="module")
def search(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Search:
    storage = tmp_path_factory.mktemp("table")
    uri = f"sqlite:///{storage}/mlflow.db"
    witness = Saboteur()
    script = Script([{"behave": fault, "name": fault} for fault in FAULTS])
    api.search(
        Analytic(storage), space=script, trials=len(FAULTS), gangs=1, scheduler="none", save_interval_s=0,
        hang_minutes=8 / 60, name="table", storage=storage, tracking_uri=uri, observers=[witness], report=False,
        quiet=True,
    )  # fmt: skip
    trials = [trial for _, trial in sorted(witness.trials.items())]
    return Search(trials, witness, read_books(storage / "table", storage, uri))


@pytest.mark.parametrize("fault", FAULTS)
def test_only_a_fault_of_the_trial_itself_loses_a_trial(search: Search, fault: str) -> None:
    expected = "FAIL" if fault in FAIL else "COMPLETE"
    assert search.trials[FAULTS.index(fault)].state == expected


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in FAIL])
def test_only_the_steps_since_the_last_readable_checkpoint_are_trained_twice(search: Search, fault: str) -> None:
    """That is one interval, here one step, and the step that was under way."""
    allowed = 3 if fault == "spoil the checkpoint once" else 2
    assert search.books.repeated(fault) <= allowed


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in FAIL])
def test_the_search_is_told_of_every_step_once(search: Search, fault: str) -> None:
    steps = [report["step"] for report in search.witness.reports[FAULTS.index(fault)]]
    assert steps == list(range(1, 10))


def test_running_out_of_memory_is_told_in_one_line_with_what_to_do(search: Search) -> None:
    error = search.trials[FAULTS.index("run out of memory")].error
    assert error is not None
    assert "\n" not in error
    assert error.endswith("lower the batch or the crop, or raise schedule.accumulate")


def test_a_trial_that_ran_out_of_memory_leaves_its_process_fit_for_the_next(search: Search) -> None:
    before, after = (FAULTS.index(fault) for fault in ("run out of memory", "hang once"))
    assert search.witness.reports[before][0]["pid"] == search.witness.reports[after][0]["pid"]


def test_a_gang_that_hangs_gets_new_processes(search: Search) -> None:
    assert len({report["pid"] for report in search.witness.reports[FAULTS.index("hang once")]}) == 2


def test_a_gang_whose_device_computes_no_more_gets_new_processes(search: Search) -> None:
    before, after = (search.witness.reports[FAULTS.index(fault)][-1] for fault in ("break the device", "kill once"))
    assert before["pid"] != after["pid"]
    assert "device-side assert" in str(search.trials[FAULTS.index("break the device")].error)


def test_a_trial_survives_its_dispatcher_in_the_same_process(search: Search) -> None:
    reports = search.witness.reports[FAULTS.index("the Dispatcher is killed")]
    assert len({report["pid"] for report in reports}) == 1


def test_all_books_agree(search: Search) -> None:
    states = [str(trial.state) for trial in search.trials]
    statuses = ["FAILED" if state == "FAIL" else "FINISHED" for state in states]
    books = search.books
    assert (books.ledger, books.optuna, books.mlflow) == (states, states, statuses)


def test_the_parent_is_finished(search: Search) -> None:
    assert search.books.mlflow_parents == ["FINISHED"]


def test_no_process_is_left(search: Search) -> None:
    assert left_of_a_search() == []
