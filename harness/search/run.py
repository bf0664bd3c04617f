"""Runs a search: gangs, Tune's loop, the searcher and the callback, from start to a clean end."""

from __future__ import annotations

import errno
import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.error import TuneError
from ray.tune.search import ConcurrencyLimiter

from harness.cluster import INTERRUPTED, check_fit, check_nodes, interruptible
from harness.event_log import LEDGER, History, Ledger
from harness.gangs.client import start_dispatcher
from harness.gangs.pool import GangPool
from harness.gangs.tune_trial import ERROR, METRICS, GangTrial
from harness.run_folder import fresh_folder, sole_driver
from harness.search.callback import TuneCallback
from harness.search.monitor import Clock, Monitor
from harness.search.objectives import Constraint, Objective
from harness.search.population import explorer
from harness.search.retention import CheckpointRetention
from harness.search.samplers import make_sampler
from harness.search.schedulers import SCHEDULERS, Past, make_scheduler, replay
from harness.search.searcher import TruthfulOptunaSearch
from harness.search.stopping import Health, Limits
from harness.search.study import JOURNAL, journal, open_study, own_trials, reconcile
from harness.trials import Experiment, SearchSpace, Trial, TrialObserver

log = logging.getLogger(__name__)


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
    most_gangs: int = 0
    """Gangs are added up to this number where nodes join; 0: none is."""
    workers_per_gang: int = 1
    scheduler: str = "asha"
    """One of `harness.search.schedulers.SCHEDULERS`."""
    sampler: str = "tpe"
    """One of `harness.search.samplers.ABILITIES`."""
    objectives: tuple[Objective, ...] = (Objective("dev/miou", "max"),)
    """The primary one, which the scheduler follows, first."""
    constraints: tuple[Constraint, ...] = ()
    """Bounds on a trial's last report that the sampler learns to keep."""
    warm_start: tuple[FrozenTrial, ...] = ()
    """Trials of another search that the sampler learns from; they are none of this one's."""
    reduction_factor: int = 3
    """ASHA and HyperBand keep one in this many trials at each rung."""
    perturb_steps: int | None = None
    """Optimizer steps between two exploits of PBT; none: `grace_steps`."""
    grid_points: int = 3
    """Values of each number in a grid."""
    stop_collapsed: bool = True
    """Whether a trial whose teacher has come to predict one class only is stopped."""
    seed: int = 0
    max_trial_retries: int = 2
    """How often a trial whose gang was lost is tried again from its checkpoint."""
    hang_timeout_s: float | None = None
    """A gang that trains this long without a report is started anew; none: never."""
    recycle_after: int = 0
    """Trials after which a gang's processes are started anew; 0: never."""
    limits: Limits = field(default_factory=Limits)
    """Caps over all sessions of the search."""
    min_free_gib: float = 0.25
    """The search is interrupted when its disk has less."""
    patience_s: float = 60.0
    """How long an interrupted search waits for its trials to be saved."""
    use_gpu: bool = False
    threads_per_worker: int = 1
    """Of the arithmetic on the CPU."""
    save_interval_s: float = 30.0
    """Least time between two checkpoints of a trial; 0 saves at every report. The end is always saved."""

    keep_checkpoints: int = 5
    """How many: those of the best complete trials; the baseline's is kept besides, all others are deleted."""
    max_checkpoint_gib: float | None = None
    """What the checkpoints of the search may take together; none: as much as `keep_checkpoints` amounts to."""

    @property
    def folder(self) -> Path:
        """Where everything of this search lies."""
        return self.storage / self.name

    @property
    def objective(self) -> Objective:
        """The primary one."""
        return self.objectives[0]

    @property
    def checkpoints(self) -> Path:
        """Folder with a folder for each trial, by number; `latest.pt` lies in it."""
        return self.folder / "trials"


class SearchBrokenError(RuntimeError):
    """The search ended because its gangs could not go on."""


class SearchEnd(NamedTuple):
    """How a search, or a session of it, ended."""

    trials: list[Trial]
    """By number, those of earlier sessions too."""
    reason: str | None
    """Why it ended before all trials were over; it can be resumed. None: all are over."""


def run_search(
    plan: SearchPlan,
    experiment: Experiment,
    space: SearchSpace,
    observers: Sequence[TrialObserver] = (),
    earlier: History | None = None,
) -> SearchEnd:
    """Search to the end, or until a limit of the plan. A Ray session must be active.

    A search whose folder holds an earlier session goes on from there: what was over stays over, what was interrupted
    goes on from its checkpoint with its number, and `plan.trials` counts them all.

    Ctrl-C ends the session in order: running trials are saved and become INTERRUPTED, observers are told, gangs are
    closed, and KeyboardInterrupt is raised. A second Ctrl-C waits for nothing; the search can be resumed all the same.

    Args:
        earlier: what `reconcile` returned for this folder; none: it is asked here.

    Raises:
        UsageError: the gangs do not fit the cluster, a node does not see the storage, the ledger cannot be read, or
            another driver is at it.
        SearchBrokenError: the gangs cannot train at all.
        KeyboardInterrupt: the search was interrupted.
    """
    check_fit(plan.gangs, plan.workers_per_gang, plan.use_gpu)
    with sole_driver(plan.folder):
        check_nodes(plan.folder)
        history = earlier or reconcile(plan.folder, plan.name, plan.objective)
        left = plan.trials - sum(trial.state.over for trial in history.trials.values())
        if left <= 0:
            return SearchEnd([trial for _, trial in sorted(history.trials.items())], None)
        with closing(Ledger(plan.folder / LEDGER, plan.objective.metric)) as ledger:
            callback, monitor = _session(plan, experiment, space, observers, history, ledger, left)
    if monitor.reason == INTERRUPTED:
        raise KeyboardInterrupt
    if monitor.broken:
        raise SearchBrokenError(monitor.reason)
    return SearchEnd(callback.trials, monitor.reason)


def _session(
    plan: SearchPlan,
    experiment: Experiment,
    space: SearchSpace,
    observers: Sequence[TrialObserver],
    history: History,
    ledger: Ledger,
    trials: int,
) -> tuple[TuneCallback, Monitor]:
    """Start everything, run Tune's loop, and end everything."""
    searcher = _make_searcher(plan, experiment, space, history)
    dispatcher = start_dispatcher(plan.max_trial_retries, plan.hang_timeout_s)
    pool = _make_pool(plan, experiment, dispatcher)
    health = Health(plan.stop_collapsed)
    try:
        with pool, interruptible() as interrupted:
            clock = Clock(pool.workers, history)
            limiter = ConcurrencyLimiter(searcher, max_concurrent=plan.gangs)
            monitor = Monitor(plan, dispatcher, pool, searcher, limiter, ledger, clock, interrupted)
            retention = CheckpointRetention(
                plan.checkpoints,
                plan.objective,
                plan.keep_checkpoints,
                history.trials.values(),
                plan.max_checkpoint_gib,
            )
            callback = TuneCallback(
                dispatcher, experiment.resolve, [ledger, *observers, retention], monitor.check, history.trials,
                plan.objective.maximise, searcher.note_params, health.reason,
            )  # fmt: skip
            stopper = Stopper(health, lambda: monitor.reason is not None and callback.idle)
            try:
                _make_tuner(plan, experiment, searcher, limiter, callback, stopper, dispatcher, history, trials).fit()
            except (OSError, TuneError) as error:
                if not any(f"[Errno {code}]" in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
                    raise  # Tune hands on what a book raised as text, in an error of its own
                monitor.reason = f"the disk of {plan.folder} is full: free some and resume"
            finally:
                _put_away(searcher, callback, monitor)
    finally:
        ray.kill(dispatcher)
    return callback, monitor


class Stopper(tune.Stopper):  # type: ignore[misc]  # ray is untyped
    """Stops sick trials, and, once the session ends, those that pause."""

    def __init__(self, health: Health, ending: Callable[[], bool]) -> None:
        self._health = health
        self._ending = ending

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Return whether a trial is stopped for its health."""
        return not result.get(ERROR) and self._health.check(trial_id, result[METRICS]) is not None

    def stop_all(self) -> bool:
        """Return whether nothing is to go on: a paused trial would otherwise wait for ever."""
        return self._ending()

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of what Tune writes and nothing reads."""
        return {}


def _put_away(searcher: TruthfulOptunaSearch, callback: TuneCallback, monitor: Monitor) -> None:
    """Close the books as they stand. Where the disk is full they stay as they are, and a resumed search closes them."""
    reason = monitor.reason or INTERRUPTED
    for close in (searcher.interrupt_unfinished, lambda: callback.interrupt_unfinished(reason), monitor.close):
        try:
            close()
        except OSError as error:
            log.warning("cannot write down how the session ended: %s", error)


def _make_searcher(
    plan: SearchPlan, experiment: Experiment, space: SearchSpace, history: History
) -> TruthfulOptunaSearch:
    study = open_study(plan.folder, plan.name)
    return TruthfulOptunaSearch(
        space=space,
        resolve=experiment.resolve,
        storage=journal(plan.folder / JOURNAL),
        study_name=plan.name,
        sampler=make_sampler(
            plan.sampler,
            plan.seed,
            space=space,
            objectives=plan.objectives,
            constrained=bool(plan.constraints),
            drawn=len(own_trials(study)) if study is not None else 0,
            points=plan.grid_points,
        ),
        checkpoints=plan.checkpoints,
        earlier=history.trials,
        objectives=plan.objectives,
        constraints=plan.constraints,
        warm=plan.warm_start,
    )


def _make_pool(plan: SearchPlan, experiment: Experiment, dispatcher: Any) -> GangPool:
    return GangPool(
        dispatcher,
        experiment,
        plan.gangs,
        (plan.workers_per_gang,),
        fresh_folder(plan.folder / "gangs"),
        plan.use_gpu,
        plan.threads_per_worker,
        0.0 if SCHEDULERS[plan.scheduler].pauses else plan.save_interval_s,
        plan.recycle_after,
        0 if SCHEDULERS[plan.scheduler].pauses else plan.most_gangs,
    )


def _make_tuner(
    plan: SearchPlan,
    experiment: Experiment,
    searcher: TruthfulOptunaSearch,
    limiter: ConcurrencyLimiter,
    callback: TuneCallback,
    stopper: Stopper,
    dispatcher: Any,
    history: History,
    trials: int,
) -> Any:
    """Return a Tuner whose trials are proxies that take no CPU and live beside the driver.

    No more trials run than there are gangs. Where trials pause, the proxies are limited by a share of the driver's node
    instead: the limiter counts paused ones, and gangs cannot be added.
    """
    pauses = SCHEDULERS[plan.scheduler].pauses
    share = math.floor(1e4 / plan.gangs) / 1e4 if pauses else 0.001
    here = {f"node:{ray.util.get_node_ip_address()}": share}
    metrics = [objective.metric for objective in plan.objectives]
    trainable = tune.with_parameters(GangTrial, dispatcher=dispatcher, metrics=metrics)
    return tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([here])),
        tune_config=tune.TuneConfig(
            search_alg=searcher if pauses else limiter,
            scheduler=_make_scheduler(plan, experiment, searcher, history),
            num_samples=trials,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.config['number']:05d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(fresh_folder(plan.folder / "sessions")),
            callbacks=[callback],
            stop=stopper,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, num_to_keep=3),
        ),
    )


def _make_scheduler(plan: SearchPlan, experiment: Experiment, searcher: TruthfulOptunaSearch, history: History) -> Any:
    """Return the scheduler, told what earlier sessions reported."""
    explore = None
    if plan.scheduler == "pbt":
        random.seed(plan.seed)  # Ray's PBT draws from the global generator
        explore = explorer(searcher.space, searcher.rebuild)
    scheduler = make_scheduler(
        plan.scheduler,
        objective=plan.objective,
        horizon=experiment.horizon,
        grace_steps=plan.grace_steps,
        reduction_factor=plan.reduction_factor,
        perturb_steps=plan.perturb_steps,
        explore=explore,
    )
    replay(scheduler, [Past(number, trial.values) for number, trial in sorted(history.trials.items())])
    return scheduler
