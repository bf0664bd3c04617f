"""A single training run under Ray Train: a gang that is given one trial.

The same workers, checkpoints and recovery serve a run and a search, so what holds for one holds for the other: a worker
that dies is replaced, and the run goes on from its last checkpoint, with fewer workers where it may.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import ray

from harness.cluster import INTERRUPTED, check_fit, check_nodes, interruptible
from harness.event_log import LEDGER, History, Ledger
from harness.experiment import CssExperiment
from harness.gangs.client import call_with_retry, start_dispatcher
from harness.gangs.messages import Job, Report
from harness.gangs.pool import GangPool, NodeMonitor
from harness.run_folder import fresh_folder, sole_driver
from harness.trials import Trial, TrialObserver, TrialState
from trainers.config import TrainConfig

KEY = "0"
POLL_S = 0.5
PATIENCE_S = 60.0
"""How long an interrupted run may take to save itself."""
MAX_RETRIES = 2


def run_train(
    config: TrainConfig,
    sizes: Sequence[int],
    storage: Path,
    name: str,
    observers: Sequence[TrialObserver] = (),
    use_gpu: bool = False,
    earlier: History | None = None,
) -> Trial:
    """Train one configuration; its checkpoint is `storage / name / latest.pt`.

    A Ray session must be active. Ctrl-C ends the run after its next step, saved, and raises KeyboardInterrupt.

    Args:
        sizes: numbers of processes that may train it, in ascending order. With one number, the run waits for a lost
            node to come back; with several, it goes on with as many as the cluster holds. The global batch and with it
            the learning rate stay the same.
        earlier: what an earlier session left in the folder's ledger; the run goes on from its checkpoint.

    Raises:
        UsageError: the workers do not fit the cluster, or a node does not see the storage.
        KeyboardInterrupt: the run was interrupted.
    """
    folder = storage.absolute() / name
    check_fit(1, sizes[0], use_gpu)
    with sole_driver(folder), closing(Ledger(folder / LEDGER, CssExperiment(config).metric)) as ledger:
        check_nodes(folder)
        trial = _train(config, sizes, folder, ledger, observers, use_gpu, earlier or History())
    if trial.state is TrialState.INTERRUPTED and trial.error == INTERRUPTED:
        raise KeyboardInterrupt
    return trial


def _train(
    config: TrainConfig,
    sizes: Sequence[int],
    folder: Path,
    ledger: Ledger,
    watchers: Sequence[TrialObserver],
    use_gpu: bool,
    earlier: History,
) -> Trial:
    experiment, observers, started = CssExperiment(config), [ledger, *watchers], time.monotonic()
    resolved, config_hash = experiment.resolve({})
    trial = earlier.trials.get(0) or Trial(number=0, params={}, overrides={})
    trial.config, trial.config_hash, trial.state, trial.error = resolved, config_hash, TrialState.RUNNING, None
    dispatcher = start_dispatcher(MAX_RETRIES)
    pool = GangPool(dispatcher, experiment, 1, sizes, fresh_folder(folder / "gangs"), use_gpu, save_interval_s=0.0)
    job = Job(KEY, {}, str(folder), config_hash, last_step=trial.step if trial.values else -1)
    for observer in observers:
        observer.on_start(trial)
    try:
        with pool, interruptible() as interrupted:
            ray.get(dispatcher.submit.remote(job))
            nodes = NodeMonitor(dispatcher, pool)
            while trial.state is TrialState.RUNNING:
                report = _next_report(dispatcher, pool, interrupted, nodes.check)
                _take_in(trial, report, experiment.metric, observers)
    finally:
        if trial.state is TrialState.RUNNING:
            trial.state, trial.error = TrialState.INTERRUPTED, INTERRUPTED
        for observer in observers:
            observer.on_end(trial)
        took_s = time.monotonic() - started
        ledger.spent(earlier.elapsed_s + took_s, earlier.device_s + pool.workers * took_s)
        ray.kill(dispatcher)
    return trial


def _next_report(
    dispatcher: Any, pool: GangPool, interrupted: threading.Event, look_at_nodes: Callable[[], None]
) -> Any:
    """Wait for the gang's next report, and end the run where the user or the gang asks for it."""
    pending = dispatcher.next_report.remote(KEY)
    deadline: float | None = None
    while True:
        done, _ = ray.wait([pending], timeout=POLL_S)
        if done:
            return ray.get(pending)
        look_at_nodes()
        if pool.broken is not None:
            call_with_retry(dispatcher.abort, pool.broken)
        elif interrupted.is_set() and deadline is None:
            deadline = time.monotonic() + PATIENCE_S
            call_with_retry(dispatcher.interrupt, INTERRUPTED)
        elif deadline is not None and time.monotonic() > deadline:
            call_with_retry(dispatcher.abort, INTERRUPTED)


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
