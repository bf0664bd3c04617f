"""Runs a search: gangs, Tune's loop, the searcher and the follower, from start to a clean end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from harness.cluster import check_fit
from harness.gangs.dispatcher import start_dispatcher
from harness.gangs.pool import GangPool
from harness.gangs.trial import OBJECTIVE, STEP, GangTrial
from harness.interrupt import INTERRUPTED, interruptible
from harness.search.follower import TrialFollower
from harness.search.keeper import CheckpointKeeper
from harness.search.searcher import TruthfulOptunaSearch, journal, make_sampler
from harness.search.space import SearchSpace
from harness.trials import Experiment, Trial, TrialObserver


@dataclass(frozen=True)
class SearchPlan:
    """What a search is to do. The arithmetic of its gangs is checked by `harness.cluster`."""

    name: str
    storage: Path
    """Absolute; the search's folder is `storage / name`."""
    trials: int
    grace_steps: int
    """Optimizer steps before the scheduler may stop a trial."""
    gangs: int = 1
    workers_per_gang: int = 1
    scheduler: Literal["asha", "none"] = "asha"
    sampler: Literal["tpe", "random"] = "tpe"
    reduction_factor: int = 3
    """ASHA keeps one in this many trials at each rung."""
    seed: int = 0
    max_trial_retries: int = 2
    """How often a trial whose gang was lost is tried again from its checkpoint."""
    use_gpu: bool = False
    threads_per_worker: int = 1
    """Of the arithmetic on the CPU."""
    save_interval_s: float = 30.0
    """Least time between two checkpoints of a trial; 0 saves at every report. The end is always saved."""

    keep_checkpoints: int = 5
    """How many: those of the best complete trials; the baseline's is kept besides, all others are deleted."""

    @property
    def folder(self) -> Path:
        """Where everything of this search lies."""
        return self.storage / self.name

    @property
    def checkpoints(self) -> Path:
        """Folder with a folder for each trial, by number; `latest.pt` lies in it."""
        return self.folder / "trials"


class SearchBrokenError(RuntimeError):
    """The search ended because its gangs could not go on."""


def run_search(
    plan: SearchPlan, experiment: Experiment, space: SearchSpace, observers: Sequence[TrialObserver] = ()
) -> list[Trial]:
    """Search to the end and return its trials by number. A Ray session must be active.

    Ctrl-C ends the search in order: running trials become FAIL with the error "interrupted", observers are told, gangs
    are closed, and KeyboardInterrupt is raised.

    Raises:
        UsageError: the gangs do not fit the cluster.
        SearchBrokenError: the gangs cannot train at all.
        KeyboardInterrupt: the search was interrupted.
    """
    check_fit(plan.gangs, plan.workers_per_gang, plan.use_gpu)
    plan.folder.mkdir(parents=True, exist_ok=True)
    searcher = _make_searcher(plan, experiment, space)
    dispatcher = start_dispatcher(plan.max_trial_retries)
    pool = _make_pool(plan, experiment, dispatcher)
    try:
        with pool, interruptible() as interrupted:
            watch = _Watch(dispatcher, pool, searcher, interrupted)
            keeper = CheckpointKeeper(plan.checkpoints, experiment.metric, plan.keep_checkpoints)
            follower = TrialFollower(dispatcher, experiment.resolve, [*observers, keeper], watch.look)
            try:
                _make_tuner(plan, experiment, searcher, follower, dispatcher).fit()
            finally:
                searcher.fail_unfinished()
                follower.fail_unfinished(watch.reason or "the search ended before the trial")
    finally:
        ray.kill(dispatcher)
    if interrupted.is_set():
        raise KeyboardInterrupt
    if watch.reason is not None:
        raise SearchBrokenError(watch.reason)
    return follower.trials


class _Watch:
    """Ends the search when the user or the gangs ask for it."""

    def __init__(
        self, dispatcher: Any, pool: GangPool, searcher: TruthfulOptunaSearch, interrupted: threading.Event
    ) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._searcher = searcher
        self._interrupted = interrupted
        self.reason: str | None = None

    def look(self) -> None:
        """Abort once there is a reason to; every open trial then fails with it through the usual path."""
        if self.reason is None:
            self.reason = INTERRUPTED if self._interrupted.is_set() else self._pool.broken
            if self.reason is not None:
                self._searcher.finish()
                ray.get(self._dispatcher.abort.remote(self.reason))


def _make_searcher(plan: SearchPlan, experiment: Experiment, space: SearchSpace) -> TruthfulOptunaSearch:
    return TruthfulOptunaSearch(
        space=space,
        resolve=experiment.resolve,
        storage=journal(plan.folder / "optuna.journal"),
        study_name=plan.name,
        sampler=make_sampler(plan.sampler, plan.seed),
        checkpoints=plan.checkpoints,
    )


def _make_pool(plan: SearchPlan, experiment: Experiment, dispatcher: Any) -> GangPool:
    return GangPool(
        dispatcher,
        experiment,
        plan.gangs,
        plan.workers_per_gang,
        plan.folder / "gangs",
        plan.use_gpu,
        plan.threads_per_worker,
        plan.save_interval_s,
    )


def _make_tuner(
    plan: SearchPlan, experiment: Experiment, searcher: TruthfulOptunaSearch, follower: TrialFollower, dispatcher: Any
) -> Any:
    """Return a Tuner whose trials are proxies that take no CPU and live beside the driver."""
    here = {f"node:{ray.util.get_node_ip_address()}": 0.001}
    trainable = tune.with_parameters(GangTrial, dispatcher=dispatcher, metric=experiment.metric)
    scheduler = (
        ASHAScheduler(
            time_attr=STEP,
            max_t=experiment.horizon,
            grace_period=plan.grace_steps,
            reduction_factor=plan.reduction_factor,
        )
        if plan.scheduler == "asha"
        else FIFOScheduler()
    )
    return tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([here])),
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode="max",
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=plan.trials,
            max_concurrent_trials=plan.gangs,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.config['number']:05d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(plan.folder),
            callbacks=[follower],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
