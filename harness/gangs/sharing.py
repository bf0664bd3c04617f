"""How many gangs of one worker a GPU holds: as wished, or as measured on one GPU before the gangs are started."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import ray
from ray.exceptions import RayError

from harness.formats import byte_size, counted
from harness.trials import Experiment, GangsBrokenError
from trainers.run import Checkpointable, Decision

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST = 16
"""Gangs a GPU that `auto` goes up to."""
CONTEXT = 2**29
"""Bytes of a GPU that a process takes beside its tensors: an estimate, about half a GiB."""
SPARE = 0.05
"""Share of a GPU's memory that no gang may allocate: the contexts of their processes are there."""
PROBE_S, SAMPLE_S = 10.0, 0.25
"""How long the probe trains after its first step, and how often it looks at the GPU meanwhile."""


class Load(NamedTuple):
    """What one gang makes of a GPU."""

    peak: int
    """Bytes of its tensors at most."""
    total: int
    """Bytes that the GPU has."""
    busy: float
    """Share of the time in which a kernel runs, 0 to 1."""

    def gangs(self, cpus: int) -> int:
        """Return how many gangs fit into the memory, and fill the time, of a GPU that has so many CPUs beside it."""
        by_memory = int((1 - SPARE) * self.total / (self.peak + CONTEXT))
        by_time = math.ceil(1 / max(self.busy, 1 / MOST))
        return max(1, min(by_memory, by_time, cpus, MOST))

    def words(self, gangs: int) -> str:
        """For people."""
        return (
            f"{counted(gangs, 'gang')} a GPU: one takes {byte_size(self.peak)} of {byte_size(self.total)} and keeps it "
            f"busy for {100 * self.busy:.0f} % of the time"
        )


def measured_sharing(experiment: Experiment, cpus: int, say: Callable[[str], object]) -> int:
    """Return how many gangs are to share a GPU, by what one does with a GPU of the active Ray session.

    Where there is no GPU, gangs do not share.

    Raises:
        GangsBrokenError: the base configuration does not train there.
    """
    here = ray.cluster_resources()
    gpus = int(here.get("GPU", 0))
    if not gpus:
        return 1
    say("measuring how many gangs a GPU holds")
    try:
        load: Load = ray.get(ray.remote(num_cpus=1, num_gpus=1, max_retries=0)(measure_load).remote(experiment))
    except RayError as error:
        reason = str(getattr(error, "cause", error)).strip().rpartition("\n")[2]
        raise GangsBrokenError(f"the base configuration could not train on a GPU by itself: {reason}") from None
    gangs = load.gangs(int(here["CPU"]) // (cpus * gpus))
    say(load.words(gangs))
    return gangs


class ProbeRun:
    """Implements `trainers.run.Run` for a training that is left some seconds after its first step."""

    rank, world_size = 0, 1

    def __init__(self, device: torch.device, seconds: float = PROBE_S) -> None:
        self.device, self._seconds = device, seconds
        self.began: float | None = None
        """When the first step was over, monotonic."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model."""
        return model

    def restore_from(self) -> None:
        """Begin anew."""

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        """Stop: a training without `interrupted` is left at its first report."""
        return Decision.STOP

    def interrupted(self, state: Checkpointable) -> bool:
        """Return whether it was watched long enough."""
        if self.began is None:
            self.began = time.monotonic()
        return time.monotonic() - self.began > self._seconds


def measure_load(experiment: Experiment) -> Load:
    """Train for some seconds on this process's GPU, and return what that makes of it."""
    import torch

    device = torch.device("cuda", torch.cuda.current_device())
    run = ProbeRun(device)
    experiment.warm_up(run)
    torch.cuda.reset_peak_memory_stats(device)
    busy, ended = list[float](), threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            if run.began is not None:
                busy.append(torch.cuda.utilization(device) / 100)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        experiment.train({}, run)
    finally:
        ended.set()
        watcher.join()
    total = torch.cuda.get_device_properties(device).total_memory
    return Load(torch.cuda.max_memory_reserved(device), total, statistics.median(busy or [1.0]))


def limit_memory(gangs_per_gpu: int, device: torch.device) -> None:
    """Let this process allocate no more than its share of the GPU that it has with other gangs."""
    if gangs_per_gpu > 1 and device.type == "cuda":
        import torch

        torch.cuda.set_per_process_memory_fraction((1 - SPARE) / gangs_per_gpu, device)
