"""One session of a search: gangs, Tune's loop, the searcher and the callback, from start to a clean end."""

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

import optuna
import ray
from optuna.trial import FrozenTrial
from ray import tune
from ray.air._internal import usage
from ray.air.execution import PlacementGroupResourceManager
from ray.tune.error import TuneError
from ray.tune.search import ConcurrencyLimiter

from harness.cluster import Allocation, check_fit, check_nodes, machine
from harness.connection import RayLostError
from harness.gangs.client import end_dispatcher, start_dispatcher
from harness.gangs.pool import GangPool
from harness.gangs.starting import Starting
from harness.gangs.tune_trial import ERROR, METRICS, GangTrial
from harness.ledger import LEDGER, Clock, History, Ledger
from harness.one_driver import sole_driver
from harness.run_folder import GANGS, SESSIONS, TRIALS, fresh_folder
from harness.signals import interruptible
from harness.start import Start
from harness.trials import INTERRUPTED, Experiment, GangsBrokenError, SearchSpace, Trial, TrialObserver
from harness.tuning.callback import TuneCallback
from harness.tuning.config import SearchConfig
from harness.tuning.joining import join, open_trials
from harness.tuning.marks import own_trials
from harness.tuning.monitor import Monitor
from harness.tuning.objectives import Objective
from harness.tuning.population import explorer
from harness.tuning.retention import CheckpointRetention
from harness.tuning.samplers import make_sampler
from harness.tuning.schedulers import SCHEDULERS, Past, make_scheduler, replay
from harness.tuning.searcher import TruthfulOptunaSearch
from harness.tuning.shared import Shared
from harness.tuning.stopping import Health
from harness.tuning.study import JOURNAL, journal, open_study, reconcile
from trainers.drafts import sweep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """What is searched, and on what."""

    folder: Path
    """Absolute; its name is the search's."""
    experiment: Experiment
    space: SearchSpace
    config: SearchConfig
    allocation: Allocation = Allocation()
    warm_start: Sequence[FrozenTrial] = ()
    """Trials of another search that the sampler learns from; they are none of this one's."""
    observers: Sequence[TrialObserver] = ()
    earlier: History | None = None
    """What `reconcile` returned for the folder; none: it is asked when the session begins."""
    shared: Shared | None = None
    """Its part in a shared study; none: the study is its own."""
    start: Start = field(default_factory=Start)
    """Stamps of the session's start so far; takes in those that are to come."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The primary one, which the scheduler follows, first."""
        return self.config.objectives(self.experiment.metric)

    @property
    def pauses(self) -> bool:
        """Whether the scheduler pauses trials."""
        return SCHEDULERS[self.config.scheduler].pauses


class SearchEnd(NamedTuple):
    """How a search, or a session of it, ended."""

    trials: list[Trial]
    """By number, those of earlier sessions too."""
    reason: str | None
    """Why it ended before all trials were over; it can be resumed. None: all are over."""


def run_search(search: Search) -> SearchEnd:
    """Search to the end, or until a limit of the config. A Ray session must be active.

    A search whose folder holds an earlier session goes on from there: what was over stays over, what was interrupted
    goes on from its checkpoint with its number, and `trials` counts them all; of a shared study, those of all drivers.

    Ctrl-C ends the session in order: running trials are saved and become INTERRUPTED, observers are told, gangs are
    closed, and KeyboardInterrupt is raised. A second Ctrl-C waits for nothing; the search can be resumed all the same.

    Raises:
        UsageError: the gangs do not fit the cluster, a node does not see the storage, the ledger cannot be read,
            another driver is at it, or its shared study is out of reach or another one.
        GangsBrokenError: the gangs cannot train at all.
        KeyboardInterrupt: the search was interrupted.
    """
    folder, objective, gangs = search.folder, search.objectives[0], search.allocation
    check_fit(gangs.gangs, gangs.workers_per_gang, gangs.worker)
    with sole_driver(folder):
        sweep(folder)
        check_nodes(folder)
        history = search.earlier or reconcile(
            folder, folder.name, objective, shared=search.shared, constraints=search.config.constraints
        )
        study = own_study(search)
        left = num_left(search, study, history)
        if left <= 0:
            return SearchEnd([trial for _, trial in sorted(history.trials.items())], None)
        with closing(Ledger(folder / LEDGER, objective.metric)) as ledger:
            ledger.begin_session(machine(gangs.worker))
            callback, monitor = _session(search, study, history, ledger, left)
    if monitor.reason == INTERRUPTED:
        raise KeyboardInterrupt
    if monitor.broken:
        raise GangsBrokenError(monitor.reason)
    return SearchEnd(callback.trials, monitor.reason)


def own_study(search: Search) -> optuna.Study | None:
    """Return the study of a search; none where it is a file that is not there yet.

    Raises:
        UsageError: of a shared one, as `join`.
    """
    if search.shared is None:
        return open_study(search.folder, search.folder.name)
    return join(search.shared, search.space, search.objectives, search.warm_start)


def num_left(search: Search, study: optuna.Study | None, history: History) -> int:
    """Return how many trials a session trains at most: those to come, and of a shared study its own unfinished ones."""
    if search.shared is None or study is None:
        return search.config.trials - sum(trial.state.over for trial in history.trials.values())
    to_come = search.config.trials - len(own_trials(study))
    return max(0, to_come) + len(open_trials(study, search.shared))


def _session(
    search: Search, study: optuna.Study | None, history: History, ledger: Ledger, trials: int
) -> tuple[TuneCallback, Monitor]:
    """Start everything, run Tune's loop, and end everything."""
    config, objective = search.config, search.objectives[0]
    searcher = _make_searcher(search, study, history)
    dispatcher = start_dispatcher(config.retries, config.hang_timeout_s)
    pool = _make_pool(search, dispatcher)
    health = Health(config.stop_collapsed)
    search.start.mark("gangs")
    try:
        with pool, interruptible() as interrupted:
            clock = Clock(history)
            limiter = ConcurrencyLimiter(searcher, max_concurrent=search.allocation.gangs)
            monitor = Monitor(config, search.folder, dispatcher, pool, searcher, limiter, ledger, clock, interrupted)
            retention = CheckpointRetention(
                search.folder / TRIALS, objective, config.keep_checkpoints, history.trials.values(),
                config.max_checkpoint_gib,
            )  # fmt: skip
            starting = Starting(search.start, dispatcher, ledger, search.allocation.gangs)
            callback = TuneCallback(
                dispatcher, search.experiment.resolve, [ledger, starting, *search.observers, retention], monitor.check,
                history.trials, objective.maximise, searcher.note_params, health.reason, lambda: monitor.reason,
            )  # fmt: skip
            stopper = Stopper(health, lambda: monitor.reason is not None and callback.idle)
            try:
                scheduler, drawing = _make_scheduler(search, searcher, history), searcher if search.pauses else limiter
                _make_tuner(search, drawing, scheduler, callback, stopper, dispatcher, trials).fit()
            except (OSError, TuneError) as error:
                if not any(f"[Errno {code}]" in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
                    raise  # Tune hands on what an observer raised as text, in an error of its own
                monitor.reason = f"the disk of {search.folder} is full: free some and resume"
            except RayLostError as error:
                monitor.lose(str(error))
            finally:
                _close(searcher, callback, monitor)
    finally:
        end_dispatcher(dispatcher)
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


def _close(searcher: TruthfulOptunaSearch, callback: TuneCallback, monitor: Monitor) -> None:
    """Write down how everything stands. Where the disk is full, a resumed search does."""
    reason = monitor.reason or INTERRUPTED
    for close in (searcher.interrupt_unfinished, lambda: callback.interrupt_unfinished(reason), monitor.close):
        try:
            close()
        except OSError as error:
            log.warning("cannot write down how the session ended: %s", error)


def _make_searcher(search: Search, study: optuna.Study | None, history: History) -> TruthfulOptunaSearch:
    config, shared = search.config, search.shared
    return TruthfulOptunaSearch(
        space=search.space,
        resolve=search.experiment.resolve,
        storage=journal(search.folder / JOURNAL) if study is None else study._storage,
        study_name=search.folder.name if shared is None else shared.name,
        sampler=make_sampler(
            config.sampler,
            config.seed,
            space=search.space,
            objectives=search.objectives,
            constrained=bool(config.constraint),
            drawn=len(own_trials(study)) if study is not None else 0,
            points=config.grid_points,
            driver="" if shared is None else shared.driver,
        ),
        checkpoints=search.folder / TRIALS,
        earlier=history.trials,
        objectives=search.objectives,
        constraints=config.constraints,
        warm=search.warm_start,
        shared=shared,
        limit=config.trials,
    )


def _make_pool(search: Search, dispatcher: Any) -> GangPool:
    config, allocation = search.config, search.allocation
    return GangPool(
        dispatcher,
        search.experiment,
        allocation.gangs,
        (allocation.workers_per_gang,),
        fresh_folder(search.folder / GANGS),
        allocation.worker,
        0.0 if search.pauses else config.save_interval_s,
        config.recycle_after,
        0 if search.pauses else allocation.most_gangs,
    )


def _make_tuner(
    search: Search, drawing: Any, scheduler: Any, callback: TuneCallback, stopper: Stopper, dispatcher: Any, trials: int
) -> Any:
    """Return a Tuner whose trials are proxies that take no CPU and live beside the driver.

    No more trials run than there are gangs. Where trials pause, the proxies are limited by a share of the driver's node
    instead: the limiter counts paused ones, and gangs cannot be added.
    """
    _mend_tune()
    share = math.floor(1e4 / search.allocation.gangs) / 1e4 if search.pauses else 0.001
    here = {f"node:{ray.util.get_node_ip_address()}": share}
    metrics = [objective.metric for objective in search.objectives]
    trainable = tune.with_parameters(GangTrial, dispatcher=dispatcher, metrics=metrics)
    return tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([here])),
        tune_config=tune.TuneConfig(
            search_alg=drawing,
            scheduler=scheduler,
            num_samples=trials,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.config['number']:05d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(fresh_folder(search.folder / SESSIONS)),
            callbacks=[callback],
            stop=stopper,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, num_to_keep=3),
        ),
    )


def _mend_tune() -> None:
    """Take out of Tune (2.60) what costs a start or hangs an end.

    For a count of its callbacks it imports MLflow, a second before the first trial. Its placement groups are removed
    where the loop ends in order; after that their manager's finaliser, in whichever thread the garbage collector runs,
    would wait for a Ray that is gone.
    """
    usage.tag_callbacks = lambda _: False
    PlacementGroupResourceManager.__del__ = lambda _: None


def _make_scheduler(search: Search, searcher: TruthfulOptunaSearch, history: History) -> Any:
    """Return the scheduler, told what earlier sessions reported."""
    config, explore = search.config, None
    if config.scheduler == "pbt":
        random.seed(config.seed)  # Ray's PBT draws from the global generator
        explore = explorer(searcher.space, searcher.rebuild)
    scheduler = make_scheduler(
        config.scheduler,
        objective=search.objectives[0],
        horizon=search.experiment.horizon,
        grace_steps=config.grace(search.experiment),
        reduction_factor=config.reduction_factor,
        perturb_steps=config.perturb_steps,
        explore=explore,
    )
    replay(scheduler, [Past(number, trial.values) for number, trial in sorted(history.trials.items())])
    return scheduler
