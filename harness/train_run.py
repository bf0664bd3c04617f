"""A single training run under Ray Train: a gang that is given one trial.

The same workers, checkpoints and recovery serve a run and a search, so what holds for one holds for the other: a worker
that dies is replaced, and the run goes on from its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from harness.cluster import check_fit
from harness.experiment import CssExperiment
from harness.gangs.messages import Job, Report
from harness.gangs.pool import GangPool
from harness.gangs.reconnect import insist, start_dispatcher
from harness.interrupt import INTERRUPTED, interruptible
from harness.trials import Trial, TrialObserver, TrialState
from trainers.config import TrainConfig

KEY = "0"
POLL_S = 0.5
PATIENCE_S = 60.0
"""How long an interrupted run may take to save itself."""
MAX_RETRIES = 2


def run_train(
    config: TrainConfig,
    workers: int,
    storage: Path,
    name: str,
    observers: Sequence[TrialObserver] = (),
    use_gpu: bool = False,
) -> Trial:
    """Train one configuration on `workers` processes; its checkpoint is `storage / name / latest.pt`.

    A Ray session must be active. Ctrl-C ends the run after its next step, saved, and raises KeyboardInterrupt.

    Raises:
        UsageError: the workers do not fit the cluster.
        KeyboardInterrupt: the run was interrupted.
    """
    check_fit(1, workers, use_gpu)
    folder = storage.absolute() / name
    experiment = CssExperiment(config)
    resolved, config_hash = experiment.resolve({})
    trial = Trial(number=0, params={}, overrides={}, config=resolved, config_hash=config_hash)
    dispatcher = start_dispatcher(MAX_RETRIES)
    pool = GangPool(dispatcher, experiment, 1, workers, folder / "gangs", use_gpu, save_interval_s=0.0)
    job = Job(trial=KEY, overrides={}, checkpoint_dir=str(folder), config_hash=config_hash)
    for observer in observers:
        observer.on_start(trial)
    try:
        with pool, interruptible() as interrupted:
            ray.get(dispatcher.submit.remote(job))
            while trial.state is TrialState.RUNNING:
                report = _next_report(dispatcher, pool, interrupted)
                _take_in(trial, report, experiment.metric, observers)
    finally:
        if trial.state is TrialState.RUNNING:
            trial.state, trial.error = TrialState.INTERRUPTED, INTERRUPTED
        for observer in observers:
            observer.on_end(trial)
        ray.kill(dispatcher)
    if trial.state is TrialState.INTERRUPTED and trial.error == INTERRUPTED:
        raise KeyboardInterrupt
    return trial


def _next_report(dispatcher: Any, pool: GangPool, interrupted: Any) -> Any:
    """Wait for the gang's next report, and end the run where the user or the gang asks for it."""
    pending = dispatcher.next_report.remote(KEY)
    deadline: float | None = None
    while True:
        done, _ = ray.wait([pending], timeout=POLL_S)
        if done:
            return ray.get(pending)
        if pool.broken is not None:
            insist(dispatcher.abort, pool.broken)
        elif interrupted.is_set() and deadline is None:
            deadline = time.monotonic() + PATIENCE_S
            insist(dispatcher.interrupt, INTERRUPTED)
        elif deadline is not None and time.monotonic() > deadline:
            insist(dispatcher.abort, INTERRUPTED)


def _take_in(trial: Trial, report: Report, metric: str, observers: Sequence[TrialObserver]) -> None:
    if report.error is not None:
        trial.state = TrialState.INTERRUPTED if report.interrupted else TrialState.FAIL
        trial.error = report.error
        return
    trial.take_in(report.metrics, report.metrics[metric])
    for observer in observers:
        observer.on_report(trial)
    if trial.metrics["finished"]:
        trial.state = TrialState.COMPLETE
