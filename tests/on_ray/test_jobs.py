"""Known trainings through warm gangs: their order, their ends, and sessions that go on where another stopped."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from analytic import MISBEHAVE_AT, Analytic, Witness
from processes import left_of_a_search, pids_of

from harness import cluster
from harness.cluster import Allocation
from harness.gangs.jobs import Jobs, JobsEnd, run_jobs
from harness.ledger import LEDGER, Ledger, read_ledger, read_times
from harness.one_driver import LOCK, Lock
from harness.run_folder import checkpoint_folder
from harness.trials import GangsBrokenError, Trial, TrialState, Value
from trainers.errors import UsageError

pytestmark = [pytest.mark.usefixtures("ray_here"), pytest.mark.timeout(600)]

SCRIPT: list[Mapping[str, Value]] = [
    {"quality": 0.5, "name": "good"},
    {"behave": "raise"},
    {"quality": 5.0},
    {"behave": "lie"},
    {"behave": "kill once", "name": "killed"},
    {"quality": 0.7, "name": "orphan"},
    {"quality": 0.9, "name": "last"},
]
ORPHAN = 5
"""The training during which the Dispatcher is killed."""


class Saboteur(Witness):
    """Kills the Dispatcher during one training."""

    def on_report(self, trial: Trial) -> None:
        super().on_report(trial)
        if trial.number == ORPHAN and trial.step == MISBEHAVE_AT:
            for pid in pids_of("Dispatcher"):
                os.kill(pid, signal.SIGKILL)


class CtrlC(Witness):
    """Presses Ctrl-C at the third report of a training."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def on_report(self, trial: Trial) -> None:
        super().on_report(trial)
        if (trial.number, trial.step) == (self.number, 3):
            os.kill(os.getpid(), signal.SIGINT)


@dataclass
class Session:
    end: JobsEnd
    witness: Witness
    folder: Path
    marks: Path

    def steps(self, name: str) -> list[int]:
        return [int(line) for line in (self.marks / f"{name}.steps").read_text().split()]


@pytest.fixture(scope="module")
def session(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Session:
    marks, witness = tmp_path_factory.mktemp("jobs"), Saboteur()
    jobs = Jobs(marks / "run", Analytic(marks), SCRIPT, observers=[witness], save_interval_s=0)
    return Session(run_jobs(jobs), witness, jobs.folder, marks)


def test_every_training_ends_in_its_true_state(session: Session) -> None:
    states = ["COMPLETE", "FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert ([str(trial.state) for trial in session.end.trials], session.end.reason) == (states, None)


def test_trainings_begin_in_the_order_in_which_they_were_given(session: Session) -> None:
    assert [event[1] for event in session.witness.events if event[0] == "start"] == list(range(len(SCRIPT)))


def test_observers_are_told_start_reports_and_end_in_order(session: Session) -> None:
    events = [event for event in session.witness.events if event[1] == 0]
    reports = [("report", 0, step, "RUNNING") for step in range(1, 10)]
    assert events == [("start", 0, 0, "RUNNING"), *reports, ("end", 0, 9, "COMPLETE")]


def test_the_ledger_holds_what_observers_are_told(session: Session) -> None:
    trials = read_ledger(session.folder / LEDGER).trials
    assert [str(trials[number].state) for number in range(len(SCRIPT))] == [
        str(trial.state) for trial in session.end.trials
    ]
    assert trials[0].values == [(step, pytest.approx(0.5 * step / 9)) for step in range(1, 10)]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (1, "RuntimeError: a bug in training"),
        (2, "UsageError: quality must be at most 1, got 5.0: lower it"),
        (3, "has hash 'another hash'"),
    ],
)
def test_a_training_that_fails_says_why(session: Session, number: int, error: str) -> None:
    assert error in str(session.end.trials[number].error)


@pytest.mark.parametrize(("number", "name"), [(4, "killed"), (ORPHAN, "orphan")])
def test_a_training_survives_its_worker_and_its_dispatcher(session: Session, number: int, name: str) -> None:
    """It is told of every step once, and at most a checkpoint's interval and the step under way are trained twice."""
    assert [report["step"] for report in session.witness.reports[number]] == list(range(1, 10))
    assert len(session.steps(name)) <= 9 + 2


def test_a_killed_worker_is_replaced_and_that_of_a_killed_dispatcher_is_not(session: Session) -> None:
    processes = [len({report["pid"] for report in session.witness.reports[number]}) for number in (4, ORPHAN)]
    assert processes == [2, 1]


def test_complete_trainings_keep_their_last_checkpoint_alone(session: Session) -> None:
    kept = sorted(str(path.relative_to(session.folder)) for path in session.folder.glob("trials/*/*"))
    assert kept == [f"trials/{number:05d}/latest.pt" for number in (0, 4, 5, 6)]


def test_there_is_no_study_and_no_session_of_tune(session: Session) -> None:
    assert {path.name for path in session.folder.iterdir()} == {LEDGER, "gangs", "trials"}


def test_no_process_is_left(session: Session) -> None:
    assert left_of_a_search() == []


def test_what_is_over_is_not_trained_again(session: Session) -> None:
    witness, before = Witness(), (session.folder / LEDGER).read_bytes()
    end = run_jobs(Jobs(session.folder, Analytic(session.marks), SCRIPT, observers=[witness]))
    assert (len(end.trials), end.reason, witness.events) == (len(SCRIPT), None, [])
    assert (session.folder / LEDGER).read_bytes() == before


def test_an_interrupted_session_goes_on_where_it_stopped(tmp_path: Path) -> None:
    script: list[Mapping[str, Value]] = [{"quality": 0.1 * number, "name": f"run-{number}"} for number in range(3)]
    first, second = CtrlC(1), Witness()
    jobs = Jobs(tmp_path / "run", Analytic(tmp_path, step_s=0.2), script, observers=[first], save_interval_s=999)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs)
    assert signal.getsignal(signal.SIGINT) is handler
    ends = [(event[1], event[3]) for event in first.events if event[0] == "end"]
    assert ends == [(0, "COMPLETE"), (1, "INTERRUPTED")]
    end = run_jobs(replace(jobs, experiment=Analytic(tmp_path), observers=[second]))
    assert [str(trial.state) for trial in end.trials] == ["COMPLETE"] * 3
    assert [event[1] for event in second.events if event[0] == "start"] == [1, 2]
    trained = [int(line) for line in (tmp_path / "run-1.steps").read_text().split()]
    assert trained == list(range(1, 10))
    assert len(read_times(tmp_path / "run" / LEDGER).sessions) == 2


def test_two_gangs_train_two_at_a_time(tmp_path: Path) -> None:
    witness = Witness()
    run_jobs(Jobs(tmp_path / "run", Analytic(tmp_path, step_s=0.3), [{}] * 4, Allocation(2), observers=[witness]))
    open_now, most = 0, 0
    for kind, *_ in witness.events:
        open_now += {"start": 1, "end": -1}.get(kind, 0)
        most = max(most, open_now)
    assert most == 2


@pytest.fixture(scope="module")
def single(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    folder = tmp_path_factory.mktemp("single")
    jobs = Jobs(folder / "run", Analytic(folder), [{}], single=True, save_interval_s=0)
    run_jobs(jobs)
    return jobs


def test_the_checkpoint_of_a_single_training_lies_in_the_folder_of_the_run(single: Jobs) -> None:
    assert (single.folder / "latest.pt").exists()
    assert not (single.folder / "trials").exists()


def test_a_single_training_that_failed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "run", Analytic(tmp_path), [{"behave": "raise once"}], single=True, save_interval_s=0)
    assert run_jobs(jobs).trials[0].state is TrialState.FAIL
    witness = Witness()
    assert run_jobs(replace(jobs, observers=[witness])).trials[0].state is TrialState.COMPLETE
    assert [report["step"] for report in witness.reports[0]] == list(range(MISBEHAVE_AT, 10))


def test_gangs_that_cannot_warm_up_end_the_session_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(GangsBrokenError, match="no data here"):
        run_jobs(Jobs(tmp_path / "run", Analytic(tmp_path, breaks_at_warm_up=True), [{}, {}]))
    assert {str(trial.state) for trial in read_ledger(tmp_path / "run" / LEDGER).trials.values()} == {"INTERRUPTED"}


def test_a_disk_with_too_little_room_interrupts_the_session(tmp_path: Path) -> None:
    more_gib = shutil.disk_usage(tmp_path).total / 2**30
    jobs = Jobs(tmp_path / "run", Analytic(tmp_path, step_s=0.1), [{}], min_free_gib=more_gib)
    end = run_jobs(jobs)
    assert "is nearly full" in str(end.reason)
    assert [str(trial.state) for trial in end.trials] == ["INTERRUPTED"]


def test_a_full_disk_ends_the_session_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def append(ledger: Ledger, event: str, number: int | None, **more: Any) -> None:
        if event in ("report", "end", "spent"):
            raise OSError(errno.ENOSPC, "no space left")
        written(ledger, event, number, **more)

    written = Ledger._append
    jobs = Jobs(tmp_path / "run", Analytic(tmp_path, step_s=0.1), [{}])
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_append", append)
        assert str(run_jobs(jobs).reason).endswith("is full: free some and go on")
    assert left_of_a_search() == []
    assert run_jobs(jobs).trials[0].state is TrialState.COMPLETE


def test_a_last_report_is_told_once_where_a_driver_died_before_the_end_was_written(single: Jobs) -> None:
    lines = (single.folder / LEDGER).read_text().splitlines(keepends=True)
    end = next(index for index, line in enumerate(lines) if '"end"' in line)
    (single.folder / LEDGER).write_text("".join(lines[:end]))
    witness = Witness()
    trial = run_jobs(replace(single, observers=[witness])).trials[0]
    assert (trial.state, len(trial.values), witness.reports) == (TrialState.COMPLETE, 9, {})


def test_a_session_has_one_driver(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "run" / LOCK)
    with pytest.raises(UsageError, match="must have one driver"):
        run_jobs(Jobs(tmp_path / "run", Analytic(tmp_path), [{}]))
    lock.release()


def test_gangs_that_do_not_fit_are_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 gangs of 2 need 6 CPUs, the cluster has 4"):
        run_jobs(Jobs(tmp_path / "run", Analytic(tmp_path), [{}], Allocation(3, 2)))


def test_a_metric_that_is_not_reported_fails_the_training(tmp_path: Path) -> None:
    trial = run_jobs(Jobs(tmp_path / "run", Analytic(tmp_path, metric="val/miou"), [{}])).trials[0]
    assert trial.state is TrialState.FAIL
    assert "must hold the metric 'val/miou'" in str(trial.error)
    assert not checkpoint_folder(tmp_path / "run" / "trials", 0).exists()


def test_a_node_that_died_before_the_cluster_noticed_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = cluster.Node("1" * 56, "10.0.0.9", {"CPU": 1})
    monkeypatch.setattr(cluster, "cluster_nodes", lambda: cluster.ClusterNodes((gone,)))
    cluster.check_nodes(tmp_path)
    assert list(tmp_path.iterdir()) == []
