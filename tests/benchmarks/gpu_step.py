"""The step of a training on a card: its stages against their rooflines, what compiling gains, and its memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from gpu_ceilings import ceilings
from gpu_rows import NOT_QUICK, Row, Setting, failed, missing, tidy
from gpu_works import Work, get_ready, step_s, works
from measuring import device_clock, peak_memory
from roofline import Roofline
from stages import NETWORK, OUTSIDE, StagedStep, take_step

from trainers.compute import step_algorithms
from trainers.config import TrainConfig
from trainers.cost import step_cost
from trainers.data.splits import Splits, open_splits
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.overrides import apply_overrides
from trainers.state import TrainState
from trainers.targets import StepContext

STAGES = (*NETWORK, *OUTSIDE)
AS_IT_IS = "as it is"
LEAST_SHARE = 0.005
"""Of the step: stages that take less have no row."""


def measure_step(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the step of each work: whole, on the host alone, and by stage; each beside its roofline."""
    for work in works(setting, root):
        yield from _step_rows(work, setting)


def _step_rows(work: Work, setting: Setting) -> Iterator[Row]:
    name, config = work
    training, splits = TrainState(config, LocalRun(device=setting.device)), open_splits(config.data)
    now, repeats = device_clock(setting.device), setting.of(1, 3, 10)
    with step_algorithms(config, setting.device):
        for _ in range(setting.of(1, 2, 5)):
            take_step(training, splits, config)
        whole, on_host = [], []
        for _ in range(repeats):
            started = now()
            take_step(training, splits, config)
            on_host.append(time.perf_counter() - started)
            whole.append(now() - started)
        taken = [StagedStep(now).take(training, splits, config) for _ in range(repeats)]
        counted = _roofline(config, setting)
        with counted:
            least = StagedStep(lambda: counted.seconds).take(training, splits, config)
    median = statistics.median(whole)
    note = f"{counted.operators} operators, {counted.flops / 1e9:.4g} GFLOP, {counted.bytes / 1e9:.4g} GB"
    yield Row("step", 1e3 * median, "ms", 1e3 * counted.seconds, note, name)
    yield Row("until the host has launched it", 1e3 * statistics.median(on_host), "ms", of=name)
    yield Row("operations a second", counted.flops / median / 1e12, "TFLOP/s", of=name)
    stages = {stage: statistics.median(one[stage] for one in taken) for stage in STAGES}
    yield Row("step to network alone", sum(stages.values()) / sum(stages[stage] for stage in NETWORK), of=name)
    for stage, seconds in stages.items():
        if seconds > LEAST_SHARE * median:
            yield Row(stage, 1e3 * seconds, "ms", 1e3 * least[stage], of=name)


def _roofline(config: TrainConfig, setting: Setting) -> Roofline:
    most = ceilings(setting)
    tf32 = config.compute.precision == "tf32" and "tf32" in most.flops
    return Roofline(most.flops, most.bytes_per_s, "tf32" if tf32 else "float32")


def measure_gains(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the time of a step, images being read meanwhile, under each setting of `compute`."""
    # One that waits for launches and, on a card, one that computes.
    for work in islice(works(setting, root), 2 if setting.cuda else 1):
        yield from _gains(work, setting)


def _gains(work: Work, setting: Setting) -> Iterator[Row]:
    """Get all kinds ready, and time them in turn: what drifts drifts for all alike."""
    (name, config), steps, ready = work, setting.of(2, 20, 50), dict[str, tuple[TrainConfig, float]]()
    for kind, settings in _kinds(config, setting).items():
        if setting.quick and kind.startswith("compute."):
            yield missing(kind, NOT_QUICK, name)
            continue
        changed = apply_overrides(config, settings)
        try:
            ready[kind] = changed, get_ready(changed, setting.device)
        except Exception as error:
            yield failed(kind, error, name)
    times: dict[str, list[float]] = {kind: [] for kind in ready}
    for _ in range(setting.of(1, 3, 3)):
        for kind, (changed, _ready_s) in ready.items():
            times[kind].append(step_s(changed, setting.device, steps))
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    for kind, median in medians.items():
        note = f"{medians[AS_IT_IS] / median:.2f} times as fast; ready after {ready[kind][1]:.1f} s"
        yield Row(kind, 1e3 * median, "ms a step", note=note, of=name)


def _kinds(config: TrainConfig, setting: Setting) -> dict[str, dict[str, Any]]:
    """Return what differs from the config, by name."""
    precisions = ("float32", "tf32", "bfloat16") if setting.cuda else ("float32", "bfloat16")
    others = [precision for precision in precisions if precision != config.compute.precision]
    switches = ["compute.compile"] + ["compute.graph"] * (config.model.arch == "tiny")  # for small networks
    return {
        AS_IT_IS: {},
        **{precision: {"compute.precision": precision} for precision in others},
        **{switch: {switch: True} for switch in switches},
    }


def measure_plan(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the memory of a training's steps beside what `s4 plan` counts of them."""
    for name, config in works(setting, root):
        cost, device, splits = step_cost(config).memory, setting.device, open_splits(config.data)
        for step in range(2):  # what is decoded then stays with the host
            load_batch(splits, config, StepContext(config.seed, step), device)
        two_steps = partial(_two_steps, config, device, splits)
        found = {"tensors at the peak": (peak_memory(two_steps), cost.peak)}
        if setting.cuda:
            allocated, reserved = _on_card(two_steps, device)
            found |= {"allocated at the peak": (allocated, cost.peak), "reserved at the peak": (reserved, cost.needed)}
        for what, (measured, counted) in found.items():
            note = f"{measured / counted:.2f} of what is counted"
            yield Row(what, measured / 2**20, "MiB", counted / 2**20, note, name)


def _two_steps(config: TrainConfig, device: torch.device, splits: Splits) -> None:
    """Take the second step, too: the optimizer has its momentum from then on."""
    training = TrainState(config, LocalRun(device=device))
    with step_algorithms(config, device):
        for _ in range(2):
            take_step(training, splits, config)


def _on_card(work: Callable[[], object], device: torch.device) -> tuple[int, int]:
    """Return the most bytes that tensors of the work had, and that torch had taken from the card for them."""
    tidy(device)
    before = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return (
        torch.cuda.max_memory_allocated(device) - before[0],
        torch.cuda.max_memory_reserved(device) - before[1],
    )
