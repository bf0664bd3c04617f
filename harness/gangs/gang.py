"""What runs in every worker of a gang: fetch a trial, train it, fetch the next."""

from __future__ import annotations

import gc
import traceback
from dataclasses import dataclass
from typing import Any

import ray
import torch

from harness.gangs.gang_run import GangRun, Ranks, Words
from harness.gangs.messages import MOVE, Job
from harness.gangs.process_state import ProcessState, computes, is_lost_peer, is_out_of_memory
from harness.gangs.reconnect import insist
from harness.trials import Experiment
from trainers.errors import DivergedError, UsageError


@dataclass(frozen=True)
class GangSpec:
    """Everything a worker needs to know to be part of a gang."""

    gang: int
    dispatcher: Any
    """Handle of the Dispatcher actor."""
    experiment: Experiment
    threads: int | None
    """Threads of each worker's arithmetic; none leaves torch's choice, which is right beside a GPU."""
    save_interval_s: float
    """Least time between two saves of a trial; 0 saves at every report."""
    recycle_after: int = 0
    """Trials after which the gang ends, to be started anew; 0: never."""


def gang_loop(config: dict[str, Any]) -> None:
    """Train trial after trial until the search is over. Runs in every worker; `config` holds a reference to a GangSpec.

    An exception in a trial fails that trial, and the gang lives on. Two kinds cannot be lived with, because the
    process is not fit for another trial: an accelerator that no longer computes, and, with more than one rank, an
    exception that only some ranks met (the others may be waiting inside a collective). The trial fails all the same,
    then the exception leaves this function and Ray Train starts the workers anew. Where a collective fails because
    another rank is gone, the exception leaves it at once, and the trial goes on from its checkpoint.
    """
    spec: GangSpec = ray.get(config["spec"])
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    ranks = Ranks()
    if not ranks.from_rank_0(_enter(spec, ranks) if ranks.rank == 0 else False) or not _warm_up(spec, ranks):
        return
    process_state = ProcessState.capture()
    words = Words(spec.dispatcher, spec.gang)
    trained = 0
    while not spec.recycle_after or trained < spec.recycle_after:
        if ranks.rank == 0:
            words.listen()
        job = ranks.from_rank_0(insist(spec.dispatcher.next_trial, spec.gang) if ranks.rank == 0 else None)
        if job is None:
            return
        process_state.restore()
        if _train(spec, ranks, job, words) == MOVE:
            return
        trained += 1


def _enter(spec: GangSpec, ranks: Ranks) -> bool:
    """Tell the Dispatcher of this gang, and return whether it is to go on."""
    insist(spec.dispatcher.introduce, spec.gang, ranks.workers, ranks.nodes)
    return bool(insist(spec.dispatcher.start_gang, spec.gang))


def _warm_up(spec: GangSpec, ranks: Ranks) -> bool:
    """Return whether the gang can train; where warming up raises, no trial could succeed and the search is ended."""
    try:
        spec.experiment.warm_up(GangRun(ranks))
    except Exception as error:
        insist(spec.dispatcher.close, f"a gang could not warm up: {_describe(error)}")
        if ranks.size > 1:  # the other ranks may wait for this one; the restarted gang finds the search closed
            raise
        return False
    gc.collect()
    gc.freeze()  # what is here now stays: collecting between trials then takes no time
    return True


def _train(spec: GangSpec, ranks: Ranks, job: Job, words: Words) -> str:
    """Train a trial; return why it was left, "" where it was not."""
    run = GangRun(ranks, spec.dispatcher, spec.gang, job, spec.save_interval_s, words)
    try:
        config_hash = spec.experiment.train(job.overrides, run)
    except Exception as error:
        if ranks.size > 1 and is_lost_peer(error):
            raise
        insist(spec.dispatcher.fail, spec.gang, job.trial, _describe(error))
        if ranks.size > 1 and not ray.get(spec.dispatcher.meet.remote(job.trial, ranks.size)):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the trial's tensors
        if not computes(ranks.device):
            raise
    else:
        if ranks.rank == 0 and run.left:
            insist(spec.dispatcher.moved if run.left == MOVE else spec.dispatcher.left, spec.gang, job.trial)
        elif ranks.rank == 0:
            insist(spec.dispatcher.complete, spec.gang, job.trial, config_hash)
    return run.left


def _describe(error: Exception) -> str:
    """Return one line for the errors that speak to the user, else the traceback."""
    if isinstance(error, (UsageError, DivergedError)):
        return f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        reason = str(error).strip().partition("\n")[0]
        return f"out of memory: {reason}: lower the batch or the crop, or raise schedule.accumulate"
    return "".join(traceback.format_exception(error))
