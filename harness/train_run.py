"""A single training run under Ray Train: a gang that is given one trial.

The same workers, checkpoints and recovery serve a run and a search, so what holds for one holds for the other: a worker
that dies is replaced, and the run goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from harness.cluster import check_fit
from harness.experiment import CssExperiment
from harness.gangs.dispatcher import Job, start_dispatcher
from harness.gangs.pool import GangPool
from harness.interrupt import INTERRUPTED, interruptible
from harness.trials import Trial, TrialObserver, TrialState
from trainers.config import TrainConfig

KEY = "0"
POLL_S = 0.5
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

    A Ray session must be active. Ctrl-C ends the run at its next report, saved, and raises KeyboardInterrupt.

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
            trial.state, trial.error = TrialState.FAIL, "the run ended before its training"
        for observer in observers:
            observer.on_end(trial)
        ray.kill(dispatcher)
    if trial.error == INTERRUPTED:
        raise KeyboardInterrupt
    return trial


def _next_report(dispatcher: Any, pool: GangPool, interrupted: Any) -> Any:
    """Wait for the gang's next report, and end the run where the user or the gang asks for it."""
    pending = dispatcher.next_report.remote(KEY)
    aborted = False
    while True:
        done, _ = ray.wait([pending], timeout=POLL_S)
        if done:
            return ray.get(pending)
        reason = INTERRUPTED if interrupted.is_set() else pool.broken
        if reason is not None and not aborted:
            ray.get(dispatcher.abort.remote(reason))
            aborted = True


def _take_in(trial: Trial, report: Any, metric: str, observers: Sequence[TrialObserver]) -> None:
    if report.error is not None:
        trial.state, trial.error = TrialState.FAIL, report.error
        return
    trial.metrics = dict(report.metrics)
    if not trial.best or trial.metrics[metric] > trial.best["value"]:
        trial.best = {"value": trial.metrics[metric], "step": trial.metrics["step"]}
    for observer in observers:
        observer.on_report(trial)
    if trial.metrics["finished"]:
        trial.state = TrialState.COMPLETE
