"""The measured training loop of a scaling run, and the background CPU load beside it."""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import torch.distributed as dist
from torch import nn

from harness.experiment import CssExperiment
from harness.scaling.step_timer import Clock, StepTimer, StepTimes
from harness.trials import Value
from trainers.config import TrainConfig
from trainers.distributed import moving_buffers
from trainers.loop import train
from trainers.run import Checkpointable, Decision, Run

LINK_BYTES = (8, 1024, 16 * 1024, 256 * 1024, 4 * 1024 * 1024)
"""Sizes of the messages that the links are tried with."""
LINK_TRIES = 30
FLOAT_BYTES = 4


class MeasuredRun:
    """A `trainers.run.Run` that ends after a number of steps and times them."""

    def __init__(self, run: Run, timer: StepTimer, steps: int) -> None:
        self.rank, self.world_size, self.device = run.rank, run.world_size, run.device
        self._run, self._timer, self._steps = run, timer, steps
        self.model = nn.ModuleList()
        """All that was wrapped."""

    def wrap(self, model: Any) -> Any:
        """Average gradients over the ranks, timed."""
        wrapped = self._run.wrap(model)
        self._timer.add_gradient_hook(wrapped)
        self.model.append(wrapped)
        return wrapped

    def restore_from(self) -> Path | None:
        """Never go on: a measurement that was cut off begins again."""
        self._timer.start()
        return None

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        """Pass a report on; the horizon lies behind the last step, so the loop makes none."""
        return self._run.report(metrics, state)

    def interrupted(self, state: Checkpointable) -> bool:
        """Note the end of a step; return whether it was the last, or the run was asked to end."""
        with self._timer.communication("control"):
            interrupted = self._run.interrupted(state)
        self._timer.end_step()
        return interrupted or self._timer.steps == self._steps


class EmptyState:
    """A state that is not worth keeping."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dictionary."""
        return {}


class ScaleExperiment(CssExperiment):
    """One repeat of one point: the median over timed blocks of images a second."""

    def __init__(self, config: TrainConfig, images: int, steps: int, blocks: int, warmup: int) -> None:
        # `images` of a step, over all workers; `steps` in a timed block; `warmup` steps before the first block.
        super().__init__(config)
        self.images, self.steps, self.warmup = images, steps, warmup
        self.horizon = warmup + steps * blocks
        self.metric = "images_per_s"

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        """Train, try the links, and report; return the hash of the config."""
        timer = StepTimer(run.device, run.world_size)
        measured = MeasuredRun(run, timer, self.horizon)
        begun = read_cpu_times()
        with timer.installed():
            train(self.base, measured)
        if timer.steps < self.horizon:  # interrupted
            return self.base.hash
        ended = read_cpu_times()
        all_ranks = gather((timer.times(self.warmup), peak_memory(run), (begun, ended)), run.world_size)
        steps, memory, cpu_times = zip(*all_ranks, strict=True)
        metrics = summarise(steps, self.steps, self.images)
        metrics |= expected_bytes(measured.model, self.base, run.world_size)
        metrics |= try_links(run)
        metrics["warmup_s"] = ended.clock_s - begun.clock_s - sum(step.step_s for step in steps[0])
        metrics["peak_memory_bytes"] = float(max(memory))
        metrics["others_cores"] = background_cores(cpu_times)
        run.report({"step": float(self.horizon), "finished": 1.0, **metrics}, EmptyState())
        return self.base.hash


def summarise(ranks: Sequence[Sequence[StepTimes]], steps: int, images: int) -> dict[str, float]:
    """Return medians over blocks, of the times of every rank in every timed step.

    A step takes as long as its slowest rank. Communication and input are means over ranks. Of a collective, the
    transfer is what the rank spent in it that came last; the others waited for that rank, too. A block has `steps`.
    """
    rows = list(zip(*ranks, strict=True))
    columns = {
        "step_s": [max(rank.step_s for rank in row) for row in rows],
        "communication_s": [statistics.fmean(rank.communication_s for rank in row) for row in rows],
        "transfer_s": [sum(map(min, zip(*(rank.waits for rank in row), strict=True))) for row in rows],
        "input_s": [statistics.fmean(rank.input_s for rank in row) for row in rows],
    }
    blocks = {name: [statistics.fmean(values[i : i + steps]) for i in range(0, len(values), steps)]
              for name, values in columns.items()}  # fmt: skip
    metrics = {name: statistics.median(values) for name, values in blocks.items()}
    metrics |= {f"block/{index}/step_s": value for index, value in enumerate(blocks["step_s"])}
    metrics["images_per_s"] = images / metrics["step_s"]
    sizes = {(step.gradients, step.messages) for rank in ranks for step in rank}
    metrics["bytes/equal_steps"] = float(len(sizes) == 1)
    gradients, messages = rows[0][0].gradients, rows[0][0].messages
    metrics["bytes/gradients"], metrics["buckets"] = float(sum(gradients)), float(len(gradients))
    metrics |= {f"bytes/message/{index}": float(sent) for index, sent in enumerate(messages)}
    metrics["collectives"] = float(len(gradients) + len(messages))
    metrics["bytes_per_step"] = float(sum(gradients) + sum(messages))
    return metrics


def expected_bytes(model: Any, config: TrainConfig, world_size: int) -> dict[str, float]:
    """Return what a rank should contribute to a step's collectives, by name; nothing where it is alone.

    Gradients; K x (D + 1) numbers for the prototypes, of Gaussians K x 2 D; BatchNorm's running statistics; and the
    sums that the losses are divided by: the divisors of L_s and L_u, K counts of hard pixels and one of valid ones, and
    OHEM's divisor.
    """
    names = ("gradients", "prototypes", "statistics", "sums")
    if world_size == 1:
        return {f"bytes/expected/{name}": 0.0 for name in names}
    K = config.num_classes
    numbers = {
        "gradients": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "prototypes": K * config.model.summed if config.uses_prototypes else 0,
        "statistics": sum(buffer.numel() for buffer in moving_buffers(model)),
        "sums": config.model.students * (1 + int(config.uses_unlabelled) + int(config.loss.supervised == "ohem")
                                         + int(config.loss.lambda_w > 0))
                + 2 * int(config.uses_discriminator)
                + (K + 1 if config.uses_prototypes else 0),
    }  # fmt: skip
    return {f"bytes/expected/{name}": float(FLOAT_BYTES * numbers[name]) for name in names}


def try_links(run: Run) -> dict[str, float]:
    """Return seconds of an all-reduce by the bytes of its message: median over tries of the rank that waited least."""
    if run.world_size == 1:
        return {}
    clock, links = Clock(run.device), {}
    for size in LINK_BYTES:
        message = torch.zeros(size // FLOAT_BYTES, device=run.device)
        tries = []
        for _ in range(LINK_TRIES):
            dist.all_reduce(torch.zeros(1, device=run.device))  # all ranks are here now
            begun = clock.now()
            dist.all_reduce(message)
            tries.append((begun, clock.now()))
        seconds = gather([clock.seconds(*ends) for ends in tries], run.world_size)
        links[f"link/{size}"] = statistics.median(map(min, zip(*seconds, strict=True)))
    return links


def gather(value: Any, world_size: int) -> list[Any]:
    """Return every rank's value on every rank."""
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    dist.all_gather_object(values, value)
    return values


def peak_memory(run: Run) -> int:
    """Return the bytes that this process had at its peak: allocated on its GPU, or resident with all its libraries."""
    if run.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(run.device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class CpuTimes(NamedTuple):
    """CPU seconds of a machine and of this process, read at one moment."""

    machine: str
    """The same for ranks on one kernel, whatever network they live in."""
    busy_s: float
    """Of all processes, since the machine started."""
    own_s: float
    clock_s: float


def read_cpu_times() -> CpuTimes:
    """Return the times of now."""
    times, boot = psutil.cpu_times(), Path("/proc/sys/kernel/random/boot_id")
    busy_s = sum(times[:8]) - times.idle - getattr(times, "iowait", 0.0)  # what follows the first 8 is counted in them
    machine = boot.read_text().strip() if boot.exists() else platform.node()
    return CpuTimes(machine, busy_s, time.process_time(), time.perf_counter())


def background_cores(readings: Sequence[tuple[CpuTimes, CpuTimes]]) -> float:
    """Return how many CPUs were busy with anything but the ranks; of the machine where most were."""
    machines: dict[str, list[tuple[CpuTimes, CpuTimes]]] = {}
    for begun, ended in readings:
        machines.setdefault(begun.machine, []).append((begun, ended))

    def cores(ranks: Sequence[tuple[CpuTimes, CpuTimes]]) -> float:
        begun, ended = ranks[0]
        own_s = sum(end.own_s - start.own_s for start, end in ranks)
        return (ended.busy_s - begun.busy_s - own_s) / (ended.clock_s - begun.clock_s)

    return max(map(cores, machines.values()))
