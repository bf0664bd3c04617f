"""The measured training loop of a scaling run, and the background CPU load beside it."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.config import TrainConfig

if TYPE_CHECKING:
    from harness.scaling.step_timer import StepTimes, StepWatch
    from harness.trials import Value
    from trainers.run import Checkpointable, Decision, Run

LINK_BYTES = (8, 1024, 16 * 1024, 256 * 1024, 4 * 1024 * 1024)
"""Sizes of the messages that the links are tried with."""
LINK_TRIES = 30
FLOAT_BYTES = 4


class MeasuredRun:
    """A `trainers.run.Run` that ends after a number of steps and watches them."""

    def __init__(self, run: Run, watch: StepWatch, steps: int) -> None:
        self.rank, self.world_size, self.device = run.rank, run.world_size, run.device
        self._run, self._watch, self._steps = run, watch, steps
        self.model: Any = None

    def wrap(self, model: Any) -> Any:
        """Average gradients over the ranks, watched."""
        wrapped = self.model = self._run.wrap(model)
        self._watch.watch_gradients(wrapped)
        return wrapped

    def restore_from(self) -> Path | None:
        """Never go on: a measurement that was cut off begins again."""
        self._watch.begin()
        return None

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        """Pass a report on; the horizon lies behind the last step, so the loop makes none."""
        return self._run.report(metrics, state)

    def interrupted(self, state: Checkpointable) -> bool:
        """Note the end of a step; return whether it was the last, or the run was asked to end."""
        with self._watch.saying("control"):
            asked = self._run.interrupted(state)
        self._watch.end_step()
        return asked or self._watch.marks == self._steps


class Nothing:
    """A state that is not worth keeping."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}


@dataclass(frozen=True)
class ScaleExperiment:
    """Implements `harness.trials.Experiment`: one repeat of one point."""

    base: TrainConfig
    images: int
    """Of a step, over all workers."""
    steps: int
    blocks: int
    warmup: int

    @property
    def horizon(self) -> int:
        """Optimizer steps that are taken."""
        return self.warmup + self.steps * self.blocks

    @property
    def metric(self) -> str:
        """Median over the blocks."""
        return "images_per_s"

    def resolve(self, overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
        """Return the config and its hash; nothing is overridden."""
        return self.base.model_dump(mode="json"), self.base.hash

    def warm_up(self, run: Run) -> None:
        """Import the trainer, read the data and take one step that is thrown away."""
        from trainers.loop import warm_up

        warm_up(self.base, run)

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        """Train, try the links, and report; return the hash of the config."""
        from harness.scaling.step_timer import StepWatch
        from trainers.loop import train

        watch = StepWatch(run.device, run.world_size)
        measured = MeasuredRun(run, watch, self.horizon)
        begun, load = time.perf_counter(), Load()
        with watch.watching():
            train(self.base, measured)
        if watch.marks < self.horizon:  # interrupted
            return self.base.hash
        took = time.perf_counter() - begun
        everyone = gather((watch.times(self.warmup), peak_memory(run), load.stop()), run.world_size)
        ranks = [times for times, _, _ in everyone]
        metrics = summarise(ranks, self.steps, self.images)
        metrics |= expected_bytes(measured.model, self.base, run.world_size)
        metrics |= try_links(run)
        metrics["warmup_s"] = took - sum(step.step_s for step in ranks[0])
        metrics["peak_memory_bytes"] = float(max(memory for _, memory, _ in everyone))
        metrics["others_cores"] = others_cores([use for _, _, use in everyone])
        run.report({"step": float(self.horizon), "finished": 1.0, **metrics}, Nothing())
        return self.base.hash


def summarise(ranks: Sequence[Sequence[StepTimes]], steps: int, images: int) -> dict[str, float]:
    """Return medians over blocks, of what every rank saw of every timed step.

    A step takes as long as its slowest rank. Communication and input are means over ranks. Of a collective, the
    transfer is what the rank spent in it that came last; the others waited for that rank, too.

    Args:
        ranks: rank by rank the same number of steps, a multiple of `steps`.
        steps: in a block.
        images: of a step, over all ranks.
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
    said = {(step.gradients, step.messages) for rank in ranks for step in rank}
    metrics["bytes/equal_steps"] = float(len(said) == 1)
    gradients, messages = rows[0][0].gradients, rows[0][0].messages
    metrics["bytes/gradients"], metrics["buckets"] = float(sum(gradients)), float(len(gradients))
    metrics |= {f"bytes/message/{index}": float(sent) for index, sent in enumerate(messages)}
    metrics["collectives"] = float(len(gradients) + len(messages))
    metrics["bytes_per_step"] = float(sum(gradients) + sum(messages))
    return metrics


def expected_bytes(model: Any, config: TrainConfig, world_size: int) -> dict[str, float]:
    """Return what a rank should contribute to a step's collectives, by name; nothing where it is alone.

    Gradients; K x (D + 1) numbers for the prototypes; BatchNorm's running statistics; and the sums that the losses are
    divided by: the divisors of L_s and L_u, K counts of hard pixels and one of valid ones, and OHEM's divisor.
    """
    names = ("gradients", "prototypes", "statistics", "sums")
    if world_size == 1:
        return {f"bytes/expected/{name}": 0.0 for name in names}
    K, D = config.num_classes, config.model.representation_dim
    numbers = {
        "gradients": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "prototypes": K * (D + 1) if config.uses_prototypes else 0,
        "statistics": sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point()),
        "sums": 1 + int(config.uses_unlabelled) + (K + 1 if config.uses_prototypes else 0)
                + int(config.loss.supervised == "ohem"),
    }  # fmt: skip
    return {f"bytes/expected/{name}": float(FLOAT_BYTES * numbers[name]) for name in names}


def try_links(run: Run) -> dict[str, float]:
    """Return seconds of an all-reduce by the bytes of its message: median over tries of the rank that waited least."""
    import torch
    import torch.distributed as dist

    from harness.scaling.step_timer import Clock

    if run.world_size == 1:
        return {}
    clock, found = Clock(run.device), {}
    for size in LINK_BYTES:
        message = torch.zeros(size // FLOAT_BYTES, device=run.device)
        tries = []
        for _ in range(LINK_TRIES):
            dist.all_reduce(torch.zeros(1, device=run.device))  # all ranks are here now
            begun = clock.now()
            dist.all_reduce(message)
            tries.append((begun, clock.now()))
        seconds = gather([clock.seconds(*one) for one in tries], run.world_size)
        found[f"link/{size}"] = statistics.median(min(row) for row in zip(*seconds, strict=True))
    return found


def gather(value: Any, world_size: int) -> list[Any]:
    """Return every rank's value on every rank."""
    import torch.distributed as dist

    if world_size == 1:
        return [value]
    everyone: list[Any] = [None] * world_size
    dist.all_gather_object(everyone, value)
    return everyone


def peak_memory(run: Run) -> int:
    """Return the bytes that this process had at its peak: allocated on its GPU, or resident with all its libraries."""
    import resource

    import torch

    if run.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(run.device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Use(NamedTuple):
    """What a rank's machine did while the rank trained."""

    machine: str
    """The same for ranks on one kernel, whatever network they live in."""
    machine_cpu_s: float
    """Of all processes."""
    own_cpu_s: float
    elapsed_s: float


class Load:
    """Looks at the machine from now until `stop`."""

    def __init__(self) -> None:
        self._begun = self._look()

    def stop(self) -> Use:
        """Return what happened."""
        machine, own, now = self._look()
        return Use(_machine(), machine - self._begun[0], own - self._begun[1], now - self._begun[2])

    def _look(self) -> tuple[float, float, float]:
        import psutil

        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return sum(times[:8]) - idle, time.process_time(), time.perf_counter()  # what follows is counted twice there


def others_cores(uses: Sequence[Use]) -> float:
    """Return how many CPUs were busy with anything but the ranks; of the machine where most were."""
    machines: dict[str, list[Use]] = {}
    for use in uses:
        machines.setdefault(use.machine, []).append(use)
    return max(
        (here[0].machine_cpu_s - sum(use.own_cpu_s for use in here)) / here[0].elapsed_s for here in machines.values()
    )


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else platform.node()
