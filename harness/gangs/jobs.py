"""Known trainings through warm gangs, without Optuna and Tune: single trainings, ablations, confirmations."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError

from harness.cluster import Allocation, check_fit, check_nodes, machine
from harness.connection import RayLostError
from harness.gangs.client import call_with_retry, end_dispatcher, start_dispatcher
from harness.gangs.messages import Job, Report
from harness.gangs.pool import GangPool, NodeMonitor
from harness.gangs.starting import Starting
from harness.ledger import LEDGER, Clock, History, Ledger, read_ledger
from harness.one_driver import sole_driver
from harness.run_folder import APART, GANGS, PREVIOUS, TRIALS, checkpoint_folder, fresh_folder
from harness.signals import interruptible
from harness.start import Start
from harness.trials import INTERRUPTED, Experiment, GangsBrokenError, Trial, TrialObserver, TrialState, Value
from trainers.drafts import sweep
from trainers.errors import UsageError

POLL_S = 0.5
"""Longest wait between two looks at signals, nodes and the clock."""
SPENT_S = 10.0
"""Time between two entries of the clock in the ledger: what a killed driver forgets of it at most."""
GIB = 2**30

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Jobs:
    """Trainings, on what they run, and how long they may take."""

    folder: Path
    """Absolute; its name is the run's."""
    experiment: Experiment
    overrides: Sequence[Mapping[str, Value]]
    """Of the base config, a training each, in the order of training: trial N is the N-th."""
    allocation: Allocation = Allocation()
    sizes: Sequence[int] = ()
    """Numbers of workers that the one gang may have, ascending: it goes on with as many as the cluster holds. None:
    those of the allocation, and a lost node is waited for."""
    observers: Sequence[TrialObserver] = ()
    earlier: History | None = None
    """What earlier sessions left: what is over stays over, the rest goes on from its checkpoint. None: the folder's
    ledger is read when the session begins."""
    single: bool = False
    """Whether there is one training, whose checkpoint lies in the folder of the run; a failed one goes on, too."""
    retries: int = 2
    """How often a training whose workers died goes on from its checkpoint."""
    hang_timeout_s: float | None = 3600.0
    """A gang that trains this long without a report is started anew; none: never."""
    save_interval_s: float = 30.0
    """Least time between two checkpoints of a training; 0 saves at every report. The end is always saved."""
    patience_s: float = 60.0
    """How long an interrupted session waits for its trainings to be saved."""
    min_free_gib: float = 0.25
    """The session is interrupted when its disk has less."""
    start: Start = field(default_factory=Start)
    """Stamps of the session's start so far; takes in those that are to come."""

    def checkpoints(self, number: int) -> Path:
        """Return the folder of a training's checkpoint."""
        return self.folder if self.single else checkpoint_folder(self.folder / TRIALS, number)


class JobsEnd(NamedTuple):
    """How a session ended."""

    trials: list[Trial]
    """By number, those of earlier sessions too."""
    reason: str | None
    """Why it ended before all were over; it can go on. None: all are over."""


def run_jobs(jobs: Jobs) -> JobsEnd:
    """Train everything that is not over. A Ray session must be active.

    Ctrl-C ends the session in order: running trainings are saved after their next step and become INTERRUPTED,
    observers are told, gangs are closed, and KeyboardInterrupt is raised.

    Raises:
        UsageError: the gangs do not fit the cluster, a node does not see the storage, or another driver is at it.
        GangsBrokenError: the gangs cannot train at all.
        KeyboardInterrupt: it was interrupted.
    """
    sizes = jobs.sizes or (jobs.allocation.workers_per_gang,)
    check_fit(jobs.allocation.gangs, sizes[0], jobs.allocation.worker)
    with sole_driver(jobs.folder):
        sweep(jobs.folder)
        check_nodes(jobs.folder)
        history = jobs.earlier or read_ledger(jobs.folder / LEDGER)
        session = _Session(jobs, history)
        if session.waiting:
            with closing(Ledger(jobs.folder / LEDGER, jobs.experiment.metric)) as ledger:
                ledger.begin_session(machine(jobs.allocation.worker))
                session.run(ledger, sizes, history)
    if session.reason == INTERRUPTED:
        raise KeyboardInterrupt
    if session.broken:
        raise GangsBrokenError(session.reason)
    return JobsEnd([trial for _, trial in sorted(session.trials.items())], session.reason)


class _Session:
    """The trainings of one session: in order, no more at once than there are gangs."""

    def __init__(self, jobs: Jobs, history: History) -> None:
        self._jobs = jobs
        self.trials = dict(history.trials)
        again = (TrialState.FAIL,) if jobs.single else ()
        over = {number for number, trial in self.trials.items() if trial.state.over and trial.state not in again}
        self.waiting = [number for number in range(len(jobs.overrides)) if number not in over]
        """Trainings that no gang has yet, in order."""
        self._running: dict[int, Job] = {}
        self._pending: dict[Any, int] = {}
        """Reports that are awaited, and whose."""
        self.reason: str | None = None
        self.broken = False

    def run(self, ledger: Ledger, sizes: Sequence[int], history: History) -> None:
        """Start the gangs, train, and end everything."""
        jobs, allocation = self._jobs, self._jobs.allocation
        self._dispatcher = start_dispatcher(jobs.retries, jobs.hang_timeout_s)
        starting = Starting(jobs.start, self._dispatcher, ledger, allocation.gangs)
        self._observers: Sequence[TrialObserver] = [ledger, starting, *jobs.observers]
        pool = GangPool(
            self._dispatcher, jobs.experiment, allocation.gangs, sizes, fresh_folder(jobs.folder / GANGS),
            allocation.worker, jobs.save_interval_s, most_gangs=allocation.most_gangs,
        )  # fmt: skip
        clock = Clock(history)
        jobs.start.mark("gangs")
        try:
            with pool, interruptible() as interrupted:
                try:
                    self._train(pool, clock, ledger, interrupted)
                except Exception as error:
                    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
                    self.reason = f"the disk of {jobs.folder} is full: free some and go on" if full else INTERRUPTED
                    call_with_retry(self._dispatcher.abort, self.reason)
                    if not full:
                        raise
        except RayLostError as error:
            self.reason, self.broken = (INTERRUPTED, False) if interrupted.is_set() else (str(error), True)
        finally:
            for number in sorted(self._running):
                _write_down(self._end, number, TrialState.INTERRUPTED, self.reason or INTERRUPTED)
            _write_down(ledger.spent, clock.elapsed_s, clock.device_s, clock.card_s)
            end_dispatcher(self._dispatcher)

    def _train(self, pool: GangPool, clock: Clock, ledger: Ledger, interrupted: threading.Event) -> None:
        nodes, wrote, deadline = NodeMonitor(self._dispatcher, pool), time.monotonic(), float("inf")
        while self._running or (self.waiting and self.reason is None):
            while self.waiting and self.reason is None and len(self._running) < pool.gangs:
                self._start(self.waiting.pop(0))
            done, _ = ray.wait(list(self._pending), timeout=POLL_S)
            for future in done:
                self._take_in(self._pending.pop(future), future)
            nodes.check()
            clock.hold(nodes.held)
            if time.monotonic() - wrote >= SPENT_S:
                wrote = time.monotonic()
                ledger.spent(clock.elapsed_s, clock.device_s, clock.card_s)
            if self.reason is not None:
                if time.monotonic() > deadline:
                    deadline = float("inf")
                    call_with_retry(self._dispatcher.abort, self.reason)
                continue
            self.reason = INTERRUPTED if interrupted.is_set() else pool.broken or self._full_disk()
            self.broken = pool.broken is not None
            if self.broken:
                call_with_retry(self._dispatcher.abort, self.reason)
            elif self.reason is not None:
                deadline = time.monotonic() + self._jobs.patience_s
                call_with_retry(self._dispatcher.interrupt, self.reason)

    def _full_disk(self) -> str | None:
        free = shutil.disk_usage(self._jobs.folder).free
        if free >= self._jobs.min_free_gib * GIB:
            return None
        return (
            f"the disk of {self._jobs.folder} is nearly full, {free / GIB:.2f} GiB are free and "
            f"{self._jobs.min_free_gib:g} must be: free some and go on"
        )

    def _start(self, number: int) -> None:
        overrides = dict(self._jobs.overrides[number])
        trial = self.trials.get(number) or Trial(number, {}, overrides)
        with suppress(UsageError):  # the gang meets it, too, and fails the training with its words
            trial.config, trial.config_hash = self._jobs.experiment.resolve(overrides)
        trial.state, trial.error = TrialState.RUNNING, None
        self.trials[number] = trial
        folder = str(self._jobs.checkpoints(number))
        last_step = trial.step if trial.metrics else -1
        self._running[number] = Job(str(number), overrides, folder, trial.config_hash, last_step=last_step)
        for observer in self._observers:
            observer.on_start(trial)
        self._submit(number)

    def _submit(self, number: int) -> None:
        call_with_retry(self._dispatcher.submit, self._running[number])
        self._await(number)

    def _await(self, number: int) -> None:
        self._pending[self._dispatcher.next_report.remote(self._running[number].trial)] = number

    def _take_in(self, number: int, future: Any) -> None:
        """Take in a report, or submit the training again where the Dispatcher died before it could tell."""
        trial = self.trials[number]
        try:
            report: Report = ray.get(future)
        except RayActorError:  # its successor knows nothing of this training
            return self._submit(number)
        if report.error is not None:
            state = TrialState.INTERRUPTED if report.interrupted else TrialState.FAIL
            return self._end(number, state, report.error)
        metric = self._jobs.experiment.metric
        if metric not in report.metrics:
            held = ", ".join(sorted(report.metrics))
            error = f"a report must hold the metric {metric!r}, this one holds {held}: report it"
            call_with_retry(self._dispatcher.drop, self._running[number].trial)
            return self._end(number, TrialState.FAIL, error)
        finished = bool(report.metrics.get("finished"))
        if not finished or trial.step < report.metrics["step"]:  # else an earlier driver died before it ended the trial
            trial.take_in(report.metrics, report.metrics[metric])
            self._running[number] = replace(self._running[number], last_step=trial.step)
            for observer in self._observers:
                observer.on_report(trial)
        return self._end(number, TrialState.COMPLETE, None) if finished else self._await(number)

    def _end(self, number: int, state: TrialState, error: str | None) -> None:
        trial = self.trials[number]
        del self._running[number]
        trial.state, trial.error = state, error
        for observer in self._observers:
            observer.on_end(trial)
        folder = self._jobs.checkpoints(number)
        if state is TrialState.FAIL and not self._jobs.single:
            shutil.rmtree(folder, ignore_errors=True)  # no gang writes to it any more
        if state is TrialState.COMPLETE:
            for path in (folder / PREVIOUS, *folder.glob(APART)):
                path.unlink(missing_ok=True)


def _write_down(write: Callable[..., None], *arguments: object) -> None:
    """Write how something ended. Where the disk is full it stays as it is, and the next session goes on with it."""
    try:
        write(*arguments)
    except OSError as error:
        log.warning("cannot write down how the session ended: %s", error)
