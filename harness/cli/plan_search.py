"""What a search costs, before it runs: a few steps are timed, the rest is arithmetic."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.checks import check_inputs
from harness.cli.options import base_config, check_space
from harness.cli.search_cost import HOUR_S, Disk, SearchCost, size_text, to_json, to_table
from harness.cli.slots import Slots, cluster_slots, gang_count, local_slots
from harness.cli.terminal import Terminal
from harness.cli.timing import existing, time_config
from harness.cli.wish import Scheduler
from harness.search import budget
from harness.search.budget import Shape
from harness.search.rungs import grace
from trainers.errors import UsageError

if TYPE_CHECKING:
    from trainers.config import TrainConfig

TRIALS, REDUCTION_FACTOR = 16, 3
"""As `s4 tune` chooses where nothing is said."""


@dataclass(frozen=True)
class Wish:
    """What was asked of the search; None means: as `s4 tune` chooses."""

    trials: int | None = None
    gangs: int | None = None
    workers_per_gang: int | None = None
    scheduler: Scheduler | None = None
    grace_steps: int | None = None
    reduction_factor: int | None = None
    keep_checkpoints: int | None = None

    @property
    def given(self) -> dict[str, object]:
        """Options and values."""
        return {f"--{name.replace('_', '-')}": value for name, value in self.__dict__.items()}


@dataclass(frozen=True)
class Caps:
    """What the search must not exceed; None: nothing."""

    max_hours: float | None = None
    max_device_hours: float | None = None

    @property
    def given(self) -> dict[str, object]:
        """Options and values."""
        return {"--max-hours": self.max_hours, "--max-device-hours": self.max_device_hours}


def plan_search(
    preset: str,
    space_name: str,
    words: list[str],
    wish: Wish,
    caps: Caps,
    timed: bool,
    address: str,
    storage: Path,
    speak: Terminal,
) -> None:
    """Plan a search and print it.

    Raises:
        UsageError: it could not run like this, or it does not fit the cluster, the disk or the caps.
    """
    from search_spaces import load_space
    from trainers.overrides import parse_settings

    asked = [name for name, value in caps.given.items() if value is not None]
    if asked and not timed:
        raise UsageError(f"{asked[0]} must be compared with times, got --no-time: leave one of them out")
    settings = parse_settings(words)
    config, space = base_config(preset, settings), load_space(space_name)
    check_space(space, config, settings)
    shape = make_shape(config, wish)
    check_inputs(config, shape.workers_per_gang)
    slots = slots_at(address)
    shape = replace(shape, gangs=gang_count(slots, shape.workers_per_gang, wish.gangs, shape.trials))
    timing = time_config(config, shape.workers_per_gang, storage) if timed else None
    size = timing.checkpoint_bytes if timing else counted_bytes(config)
    keep = budget.KEEP if wish.keep_checkpoints is None else wish.keep_checkpoints
    disk = Disk(size, keep, budget.most_checkpoints(shape, keep), shutil.disk_usage(existing(storage)).free)
    cost = SearchCost(preset, space.name, shape, slots, disk, timing)
    check_disk(cost, storage)
    check_caps(cost, caps)
    speak.console.print(to_table(cost))
    speak.result(to_json(cost))


def make_shape(config: TrainConfig, wish: Wish) -> Shape:
    """Return the numbers of the search, with one gang.

    Raises:
        UsageError: the grace period is longer than the horizon.
    """
    schedule = config.schedule
    return Shape(
        trials=wish.trials or TRIALS,
        gangs=1,
        workers_per_gang=wish.workers_per_gang or 1,
        horizon=schedule.steps,
        every=schedule.evaluate_every,
        scheduler=(wish.scheduler or Scheduler.asha).value,
        grace_steps=grace(schedule.steps, schedule.evaluate_every, wish.grace_steps),
        reduction_factor=wish.reduction_factor or REDUCTION_FACTOR,
    )


def slots_at(address: str) -> Slots:
    """Return what workers can be put on, here or in the cluster that runs there.

    Raises:
        UsageError: no cluster runs there.
    """
    if address == "local":
        return local_slots()
    from harness.cluster import ray_session

    with ray_session(address):
        return cluster_slots()


def counted_bytes(config: TrainConfig) -> int:
    """Return about what a checkpoint takes, counted: student, teacher, momentum and prototypes."""
    from trainers.cost import step_cost

    memory = step_cost(config, 1).memory
    return memory.weights + memory.optimizer + 8 * config.num_classes * config.model.representation_dim


def check_disk(cost: SearchCost, storage: Path) -> None:
    """Refuse checkpoints that the disk cannot hold.

    Raises:
        UsageError: says how many would fit.
    """
    disk = cost.disk
    usable = max(0, disk.free - budget.MIN_FREE)
    if disk.needed <= usable:
        return
    room = usable // disk.checkpoint - budget.most_checkpoints(cost.shape, 0)
    smaller = budget.most_checkpoints(cost.shape, disk.keep) > budget.most_checkpoints(cost.shape, 0)
    advice = f"--keep-checkpoints {room}, " if smaller and room >= 0 else "fewer --gangs, "
    raise UsageError(
        f"checkpoints must fit in {storage}, {disk.files} of {size_text(disk.checkpoint)} need "
        f"{size_text(disk.needed)}, and of {size_text(disk.free)} that are free a search leaves "
        f"{size_text(budget.MIN_FREE)}: {advice}another --storage, or make room"
    )


def check_caps(cost: SearchCost, caps: Caps) -> None:
    """Refuse a search that is expected to exceed a cap.

    Raises:
        UsageError: says which settings would keep it.
    """
    if cost.pace is None:
        return
    if not cost.comparable and (caps.max_hours is not None or caps.max_device_hours is not None):
        raise UsageError(
            f"hours must be timed on what the gangs run on, {cost.slots.unit}s, got "
            f"{cost.timing and cost.timing.device}: run s4 plan where there is one, or leave out --max-hours and "
            "--max-device-hours"
        )
    pace, shape = cost.pace, cost.shape
    rules: list[tuple[str, float | None, Callable[[Shape], float], str]] = [
        ("--max-hours", caps.max_hours, lambda it: budget.wall_s(it, pace).expected / HOUR_S, "hours"),
        (
            "--max-device-hours",
            caps.max_device_hours,
            lambda it: budget.device_s(it, pace).expected / HOUR_S,
            f"{cost.slots.unit}-hours",
        ),
    ]
    for option, cap, hours, unit in rules:
        if cap is None or hours(shape) <= cap:
            continue
        within = _within(hours, cap)
        trials = budget.most_trials(shape, within)
        most_gangs = cost.slots.count // shape.workers_per_gang
        gangs = budget.least_gangs(shape, most_gangs, within)
        fits = [f"--trials {trials}"] * (trials > 0) + [f"--gangs {gangs}"] * (gangs is not None)
        advice = f"{' or '.join(fits)} would fit" if fits else "lower schedule.steps, not even one trial fits"
        raise UsageError(
            f"the search must keep to {option} {cap:g}, expected are {hours(shape):.3g} {unit} for {shape.trials} "
            f"trials on {shape.gangs} x {shape.workers_per_gang} {cost.slots.unit}s: {advice}"
        )


def _within(hours: Callable[[Shape], float], cap: float) -> Callable[[Shape], bool]:
    return lambda shape: hours(shape) <= cap
