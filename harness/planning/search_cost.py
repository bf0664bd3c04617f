"""The cost of a search before it runs: a few steps are timed, the rest is arithmetic."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.cli.checks import check_inputs
from harness.cli.options import base_config, check_space
from harness.cli.wish import Scheduler
from harness.cluster import Slots, cluster_slots, gang_count, local_slots
from harness.console import Console
from harness.formats import HOUR_S, byte_size, duration
from harness.planning import arithmetic as budget
from harness.planning.arithmetic import Pace, Range, Shape
from harness.planning.measure import Timing, existing, time_config
from harness.search.config import grace
from harness.tables import Table, facts_table
from trainers.errors import UsageError

if TYPE_CHECKING:
    from trainers.config import TrainConfig


class Disk(NamedTuple):
    """Bytes of the checkpoints."""

    checkpoint: int
    """Of one."""
    keep: int
    """Best trials whose checkpoints are kept."""
    files: int
    """Files at once, at most."""
    free: int

    @property
    def needed(self) -> int:
        """At most."""
        return self.files * self.checkpoint


class SearchCost(NamedTuple):
    """A search and what it costs."""

    preset: str
    space: str
    shape: Shape
    slots: Slots
    disk: Disk
    timing: Timing | None
    """None where nothing was timed."""

    @property
    def pace(self) -> Pace | None:
        """What a trial costs on a gang: its workers share evaluations as they share the batch."""
        timing = self.timing
        if timing is None:
            return None
        evaluate_s = timing.evaluate_s / self.shape.workers_per_gang
        return Pace(timing.step_s, evaluate_s, timing.save_s, timing.start_s, timing.checkpoint_bytes)

    @property
    def comparable(self) -> bool:
        """Whether steps were timed on the kind of device that gangs will have."""
        return self.timing is None or self.timing.unit == self.slots.unit


def to_table(cost: SearchCost) -> Table:
    """Return the plan as names and values."""
    title = f"plan of {cost.shape.trials} trials of {cost.preset} in space {cost.space}"
    return facts_table("plan", title, [_rung_rows(cost), _time_rows(cost), _disk_rows(cost)])


def to_json(cost: SearchCost) -> dict[str, Any]:
    """Return the plan as numbers: steps, seconds, hours, bytes."""
    shape, pace = cost.shape, cost.pace
    found: dict[str, Any] = {
        "preset": cost.preset,
        "space": cost.space,
        **shape.__dict__,
        "slots": cost.slots.__dict__,
        "decisions": budget.decisions(shape) if shape.scheduler == "asha" else [],
        "ends": [ends._asdict() for ends in budget.expected_ends(shape)],
        "steps": budget.total_steps(shape)._asdict(),
        "disk": {**cost.disk._asdict(), "needed": cost.disk.needed},
        "timing": cost.timing.__dict__ if cost.timing else None,
        "comparable": cost.comparable,
        "full_trial_s": None,
        "hours": None,
        "device_hours": None,
    }
    if pace is not None:
        found["full_trial_s"] = pace.trial_s(shape.horizon, shape)
        found["hours"] = _hours(budget.wall_s(shape, pace))._asdict()
        found["device_hours"] = _hours(budget.device_s(shape, pace))._asdict()
    return found


def _rung_rows(cost: SearchCost) -> list[tuple[str, str]]:
    shape, steps = cost.shape, budget.total_steps(cost.shape)
    unit = cost.slots.unit
    rows = [
        ("gangs", f"{shape.gangs} x {shape.workers_per_gang} workers = {shape.workers} of {cost.slots.count} {unit}s"),
        ("horizon", f"{shape.horizon} steps, a report every {shape.every}"),
    ]
    if shape.scheduler == "asha":
        arrivals = float(shape.trials)
        for step, trials in budget.expected_ends(shape)[:-1]:
            rows.append(
                (f"rung at step {step}", f"{arrivals:.3g} trials arrive, {arrivals - trials:.3g} go on (expected)")
            )
            arrivals -= trials
        rows.append(("complete", f"{arrivals:.3g} trials (expected)"))
    elif shape.scheduler == "none":
        rows.append(("complete", f"{shape.trials} trials: none is stopped"))
    else:
        rows.append(("complete", f"what {shape.scheduler} will stop is not foreseen: planned as if it were nothing"))
    return [*rows, ("steps", _range(steps, lambda value: f"{value:,.0f}"))]


def _time_rows(cost: SearchCost) -> list[tuple[str, str]]:
    timing, pace, shape = cost.timing, cost.pace, cost.shape
    if timing is None or pace is None:
        return [("time", "not measured (--no-time)")]
    share = "" if shape.workers_per_gang == 1 else f" with a worker's share of the batch, 1 in {shape.workers_per_gang}"
    return [
        ("timed here", f"{timing.steps} steps in one process on {timing.device}{share}"
                       + ("" if cost.comparable else f"; the gangs will have {cost.slots.unit}s, which is not this")),
        ("  measured", f"step {duration(timing.step_s)}, evaluation {duration(timing.evaluate_s)}, checkpoint "
                       f"{duration(timing.save_s)}, start of a trial {duration(timing.start_s)}"),
        ("a full trial", duration(pace.trial_s(shape.horizon, shape))),
        ("wall clock", _range(_hours(budget.wall_s(shape, pace)), lambda hours: duration(hours * HOUR_S))),
        (f"{cost.slots.unit}-hours", _range(_hours(budget.device_s(shape, pace)), lambda hours: f"{hours:.3g}")),
        ("  not in them", "starting Ray and gangs once; gangs that slow each other down; other hardware than this"),
    ]  # fmt: skip


def _disk_rows(cost: SearchCost) -> list[tuple[str, str]]:
    disk = cost.disk
    how = "measured" if cost.timing else "counted"
    return [
        (
            "checkpoints",
            f"{disk.files} at once at most, {byte_size(disk.checkpoint)} each ({how}): {byte_size(disk.needed)}",
        ),
        ("  free", f"{byte_size(disk.free)} in --storage"),
    ]


def _hours(seconds: Range) -> Range:
    return Range(*(value / HOUR_S for value in seconds))


def _range(found: Range, text: Callable[[float], str]) -> str:
    if found.least == found.most:
        return text(found.expected)
    return f"{text(found.expected)} expected, {text(found.least)} at least, {text(found.most)} if no trial is stopped"


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
    console: Console,
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
    console.table(to_table(cost))
    console.result(to_json(cost))


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
        f"checkpoints must fit in {storage}, {disk.files} of {byte_size(disk.checkpoint)} need "
        f"{byte_size(disk.needed)}, and of {byte_size(disk.free)} that are free a search leaves "
        f"{byte_size(budget.MIN_FREE)}: {advice}another --storage, or make room"
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
