"""The loop of every worker of a gang: fetch a trial, reset the process, train it, fetch the next."""

from __future__ import annotations

import gc
import os
import random
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import ray
import torch
import torch.distributed as dist

from harness.cluster import WorkerResources
from harness.gangs.client import call_with_retry
from harness.gangs.gang_run import ControlChannel, GangRun, Ranks
from harness.gangs.messages import MOVE, GangSpec, Job, in_a_line
from harness.gangs.sharing import limit_memory
from trainers.data.threads import THREADS_VARIABLE
from trainers.errors import DivergedError, UsageError


def train_trials(spec: GangSpec, stamps: Mapping[str, float] = MappingProxyType({})) -> None:
    """Train trial after trial until the search is over. Runs in every worker.

    An exception in a trial fails that trial, and the gang lives on. Two kinds cannot be lived with, because the
    process is not fit for another trial: an accelerator that no longer computes, and, with more than one rank, an
    exception that only some ranks met (the others may be waiting inside a collective). The trial fails all the same,
    then the exception leaves this function and Ray Train starts the workers anew. Where a collective fails because
    another rank is gone, the exception leaves it at once, and the trial goes on from its checkpoint.

    Args:
        stamps: of the start of this process so far.
    """
    _set_threads(spec.resources)
    first = ray.train.get_context().get_world_rank() == 0
    # Before anything that can fail, so that a gang that never becomes one is not started for ever.
    wanted = bool(call_with_retry(spec.dispatcher.start_gang, spec.gang)) if first else False
    try:
        ranks = Ranks()
    except Exception as error:
        if first and not wanted:
            return
        call_with_retry(spec.dispatcher.ail, spec.gang, in_a_line(error))
        raise
    limit_memory(spec.resources.gangs_per_gpu, ranks.device)
    if first:
        call_with_retry(spec.dispatcher.introduce, spec.gang, ranks.workers, ranks.nodes)
    wanted, formed = ranks.from_rank_0(wanted), time.time()
    if not wanted or not _warm_up(spec, ranks):
        return
    if first:
        spec.dispatcher.note_start.remote({**stamps, "gang": formed, "warm_up": time.time()}, spec.gang)
    process_state = ProcessState.capture()
    channel = ControlChannel(spec.dispatcher, spec.gang)
    trained = 0
    while not spec.recycle_after or trained < spec.recycle_after:
        if ranks.rank == 0:
            channel.subscribe()
        job = ranks.from_rank_0(call_with_retry(spec.dispatcher.next_trial, spec.gang) if ranks.rank == 0 else None)
        if job is None:
            return
        process_state.restore()
        if _train(spec, ranks, job, channel) == MOVE:
            return
        trained += 1


def _set_threads(resources: WorkerResources) -> None:
    if resources.threads is not None:
        torch.set_num_threads(resources.threads)
    if resources.cpus_per_worker is not None:
        os.environ[THREADS_VARIABLE] = str(resources.cpus_per_worker)


def _warm_up(spec: GangSpec, ranks: Ranks) -> bool:
    """Return whether the gang can train; where warming up raises, no trial could succeed and the search is ended."""
    try:
        spec.experiment.warm_up(GangRun(ranks))
    except Exception as error:
        call_with_retry(spec.dispatcher.close, f"a gang could not warm up: {_describe(error)}")
        if ranks.size > 1:  # the other ranks may wait for this one; the restarted gang finds the search closed
            raise
        return False
    gc.collect()
    gc.freeze()  # what is here now stays: collecting between trials then takes no time
    return True


def _train(spec: GangSpec, ranks: Ranks, job: Job, channel: ControlChannel) -> str:
    """Train a trial; return why it was left, "" where it was not."""
    run = GangRun(ranks, spec.dispatcher, spec.gang, job, spec.save_interval_s, channel)
    try:
        config_hash = spec.experiment.train(job.overrides, run) or spec.experiment.resolve(job.overrides)[1]
    except Exception as error:
        if ranks.size > 1 and is_lost_peer(error):
            raise
        call_with_retry(spec.dispatcher.fail, spec.gang, job.trial, _describe(error))
        if ranks.size > 1 and not ray.get(spec.dispatcher.meet.remote(job.trial, ranks.size)):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the trial's tensors
        if not computes(ranks.device):
            raise
    else:
        if ranks.rank == 0 and run.left:
            call_with_retry(spec.dispatcher.moved if run.left == MOVE else spec.dispatcher.left, spec.gang, job.trial)
        elif ranks.rank == 0:
            call_with_retry(spec.dispatcher.complete, spec.gang, job.trial, config_hash)
    return run.left


def _describe(error: Exception) -> str:
    """Return one line for the errors that speak to the user, else the traceback."""
    if isinstance(error, (UsageError, DivergedError)):
        return f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        reason = str(error).strip().partition("\n")[0]
        return f"out of memory: {reason}: lower the batch or the crop, or raise schedule.accumulate"
    return "".join(traceback.format_exception(error))


SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
)
"""What reads a setting of torch, and what changes it."""
CUDNN = ("benchmark", "deterministic", "allow_tf32")


def _algorithms() -> tuple[bool, bool]:
    """Return whether algorithms must be deterministic, and whether others only warn."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@dataclass(frozen=True)
class ProcessState:
    """Global settings of a process that training code may change."""

    folder: Path
    environment: dict[str, str]
    values: tuple[Any, ...]
    """Of `SETTINGS`."""
    algorithms: tuple[bool, bool]
    cudnn: dict[str, bool]

    @classmethod
    def capture(cls) -> ProcessState:
        """Remember the settings as they are now."""
        cudnn = {name: getattr(torch.backends.cudnn, name) for name in CUDNN}
        values = tuple(get() for get, _ in SETTINGS)
        return cls(Path.cwd(), dict(os.environ), values, _algorithms(), cudnn)

    def restore(self) -> None:
        """Put the settings back, seed the global generators with a constant, and free what the last trial held.

        A constant seed, not the state as captured: it is the same in a process that has just been started.
        """
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        os.chdir(self.folder)
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(self.environment)
        torch.set_default_device(None)
        for (_, change), value in zip(SETTINGS, self.values, strict=True):
            change(value)
        if _algorithms() != self.algorithms:  # the call imports torch's compiler: 2 s and 150 MB in torch 2.14
            torch.use_deterministic_algorithms(self.algorithms[0], warn_only=self.algorithms[1])
        for name, enabled in self.cudnn.items():
            setattr(torch.backends.cudnn, name, enabled)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  # the legacy generator is the one that is global
        torch.manual_seed(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator gave up: the GPU's, torch's on the CPU (a plain RuntimeError), or Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


LOST_PEER = (
    "Connection reset by peer",
    "Connection closed by peer",
    "Broken pipe",
    "Timed out",
    "Connection timed out",
)
"""How Gloo says that a rank is gone (torch 2.14 raises a plain RuntimeError)."""


def is_lost_peer(error: BaseException) -> bool:
    """Return whether a collective failed because another rank is gone: nothing that the trial did."""
    if isinstance(error, dist.DistNetworkError | dist.DistBackendError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and "gloo" in said and any(words in said for words in LOST_PEER)


def computes(device: torch.device) -> bool:
    """Return whether the device still does: after an error of the accelerator every later call fails."""
    try:
        return bool((torch.ones(2, device=device).sum() == 2).item())
    except RuntimeError:
        return False
