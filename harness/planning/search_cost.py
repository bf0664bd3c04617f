"""The cost of a search before it runs: a few steps are timed, the rest is arithmetic."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.cluster import Slots, allocate, cluster_slots, local_slots
from harness.connection import ray_session
from harness.experiment import CssExperiment
from harness.formats import HOUR_S, byte_size, counted, duration
from harness.planning import arithmetic as budget
from harness.planning.arithmetic import Pace, Range, Shape
from harness.planning.measure import Timing, existing, time_config
from harness.planning.training_cost import Rows
from harness.tables import Table, facts_table
from harness.trials import checked_sharing
from harness.tuning.config import SearchConfig, fit_space
from search_spaces import load_space
from trainers.config import TrainConfig
from trainers.cost import step_cost
from trainers.errors import UsageError
from trainers.snapshots import KEPT


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
        """What a trial costs on a gang: its workers share evaluations as they share the batch.

        Gangs that share a GPU are planned as if nothing were gained: it is what they gain at least.
        """
        timing = self.timing
        if timing is None:
            return None
        shape, sharing = self.shape, max(1.0, 1 / self.shape.devices_per_worker)
        evaluate_s = timing.evaluate_s / shape.workers_per_gang
        return replace(timing, step_s=timing.step_s * sharing, evaluate_s=evaluate_s * sharing)

    @property
    def comparable(self) -> bool:
        """Whether steps were timed on the kind of device that gangs will have."""
        return self.timing is None or self.timing.unit == self.slots.unit


def plan_search(
    experiment: CssExperiment, options: SearchConfig, storage: Path, address: str = "local", timed: bool = True
) -> SearchCost:
    """Plan a search; nothing is left in the storage, where steps of the base configuration are `timed`.

    Raises:
        UsageError: it could not run like this, or it does not fit the cluster, the disk or the caps.
    """
    for option, cap in (("--max-hours", options.max_hours), ("--max-device-hours", options.max_device_hours)):
        if cap is not None and not timed:
            raise UsageError(f"{option} must be compared with times, got --no-time: leave one of them out")
    space, workers = fit_space(load_space(options.space), experiment), options.workers_per_gang
    grace_steps = options.grace(experiment)
    experiment.check(workers)
    shared = checked_sharing(options.gangs_per_gpu)
    if shared is None:
        raise UsageError("a plan must have a number of gangs a GPU, got --gangs-per-gpu auto: give one")
    slots = slots_at(address, options.cpus_per_worker, shared)
    shape = Shape(
        trials=options.trials,
        gangs=allocate(slots, workers, options.gangs, options.trials).gangs,
        workers_per_gang=workers,
        horizon=experiment.horizon,
        every=experiment.report_every,
        scheduler=options.scheduler,
        grace_steps=grace_steps,
        reduction_factor=options.reduction_factor,
        devices_per_worker=slots.worker.devices,
    )
    timing = time_config(experiment.base, workers, storage, slots.worker.cpus) if timed else None
    size, keep = timing.checkpoint_bytes if timing else counted_bytes(experiment.base), options.keep_checkpoints
    disk = Disk(size, keep, budget.most_checkpoints(shape, keep), shutil.disk_usage(existing(storage)).free)
    cost = SearchCost(experiment.name, space.name, shape, slots, disk, timing)
    check_disk(cost, storage)
    check_caps(cost, options.max_hours, options.max_device_hours)
    return cost


def slots_at(address: str, cpus: int | None = None, gangs_per_gpu: int = 1) -> Slots:
    """Return what workers of `cpus` CPUs can be put on, here or in the cluster that runs there.

    Raises:
        UsageError: no cluster runs there.
    """
    if address == "local":
        return local_slots(cpus, gangs_per_gpu)
    with ray_session(address):
        return cluster_slots(cpus, gangs_per_gpu)


def counted_bytes(config: TrainConfig) -> int:
    """Return about what a checkpoint takes, counted: student, teacher, momentum, prototypes and snapshots of them."""
    memory, schedule = step_cost(config, 1).memory, config.schedule
    numbers = config.num_classes * config.model.representation_dim
    reports = min(KEPT, -(-schedule.steps // schedule.evaluate_every)) if config.uses_prototypes else 0
    snapshots = reports * 2 * numbers * (config.evaluation.representation_pixels + 1)
    return memory.weights + memory.optimizer + 8 * numbers + snapshots


def check_disk(cost: SearchCost, storage: Path) -> None:
    """Refuse checkpoints that the disk cannot hold.

    Raises:
        UsageError: says how many would fit.
    """
    disk = cost.disk
    usable = max(0, disk.free - budget.MIN_FREE)
    if disk.needed <= usable:
        return
    live = budget.most_checkpoints(cost.shape, 0)
    room = usable // disk.checkpoint - live
    smaller = budget.most_checkpoints(cost.shape, disk.keep) > live
    advice = f"--keep-checkpoints {room}, " if smaller and room >= 0 else "fewer --gangs, "
    raise UsageError(
        f"checkpoints must fit in {storage}, {disk.files} of {byte_size(disk.checkpoint)} need "
        f"{byte_size(disk.needed)}, and of {byte_size(disk.free)} that are free a search leaves "
        f"{byte_size(budget.MIN_FREE)}: {advice}another --storage, or make room"
    )


def check_caps(cost: SearchCost, max_hours: float | None = None, max_device_hours: float | None = None) -> None:
    """Refuse a search that is expected to exceed a cap.

    Raises:
        UsageError: says which settings would keep it.
    """
    pace, shape, unit = cost.pace, cost.shape, cost.slots.unit
    if pace is None or (max_hours is None and max_device_hours is None):
        return
    if not cost.comparable:
        raise UsageError(
            f"hours must be timed on what the gangs run on, {unit}s, got {cost.timing and cost.timing.device}: run s4 "
            "plan where there is one, or leave out --max-hours and --max-device-hours"
        )
    for option, cap, seconds, hours in (
        ("--max-hours", max_hours, budget.wall_s, "hours"),
        ("--max-device-hours", max_device_hours, budget.device_s, f"{unit}-hours"),
    ):
        expected = seconds(shape, pace).expected / HOUR_S
        if cap is None or expected <= cap:
            continue
        within = _within(seconds, pace, cap)
        trials = budget.most_trials(shape, within)
        gangs = budget.least_gangs(shape, cost.slots.count // shape.workers_per_gang, within)
        fits = [f"--trials {trials}"] * (trials > 0) + [f"--gangs {gangs}"] * (gangs is not None)
        advice = f"{' or '.join(fits)} would fit" if fits else "lower schedule.steps, not even one trial fits"
        raise UsageError(
            f"the search must keep to {option} {cap:g}, expected are {expected:.3g} {hours} for {shape.trials} "
            f"trials on {shape.gangs} x {shape.workers_per_gang} {unit}s: {advice}"
        )


def _within(seconds: Callable[[Shape, Pace], Range], pace: Pace, cap: float) -> Callable[[Shape], bool]:
    return lambda shape: seconds(shape, pace).expected / HOUR_S <= cap


def to_json(cost: SearchCost) -> dict[str, Any]:
    """Return the plan as numbers: steps, seconds, hours, bytes."""
    shape, pace = cost.shape, cost.pace
    return {
        "preset": cost.preset,
        "space": cost.space,
        **asdict(shape),
        "slots": asdict(cost.slots),
        "decisions": budget.decisions(shape) if shape.scheduler == "asha" else [],
        "ends": [ends._asdict() for ends in budget.expected_ends(shape)],
        "steps": budget.total_steps(shape)._asdict(),
        "disk": {**cost.disk._asdict(), "needed": cost.disk.needed},
        "timing": asdict(cost.timing) if cost.timing else None,
        "comparable": cost.comparable,
        "full_trial_s": pace and pace.trial_s(shape.horizon, shape),
        "hours": pace and _hours(budget.wall_s(shape, pace))._asdict(),
        "device_hours": pace and _hours(budget.device_s(shape, pace))._asdict(),
    }


def to_table(cost: SearchCost) -> Table:
    """Return the plan as names and values."""
    title = f"plan of {counted(cost.shape.trials, 'trial')} of {cost.preset} in space {cost.space}"
    return facts_table("plan", title, [_rung_rows(cost), _time_rows(cost), _disk_rows(cost)])


def _rung_rows(cost: SearchCost) -> Rows:
    shape = cost.shape
    rows = [
        (
            "gangs",
            f"{shape.gangs} x {counted(shape.workers_per_gang, 'worker')} = {shape.workers} of {cost.slots.words}",
        ),
        ("horizon", f"{counted(shape.horizon, 'step')}, a report every {shape.every}"),
    ]
    if shape.scheduler == "asha":
        arrivals = float(shape.trials)
        for step, trials in budget.expected_ends(shape)[:-1]:
            passing = arrivals - trials
            rows.append((f"rung at step {step}", f"{arrivals:.3g} trials arrive, {passing:.3g} go on (expected)"))
            arrivals = passing
        rows.append(("complete", f"{arrivals:.3g} trials (expected)"))
    elif shape.scheduler == "none":
        rows.append(("complete", f"{counted(shape.trials, 'trial')}: none is stopped"))
    else:
        rows.append(("complete", f"what {shape.scheduler} will stop is not foreseen: planned as if it were nothing"))
    return [*rows, ("steps", _range(budget.total_steps(shape), lambda value: f"{value:,.0f}"))]


def _time_rows(cost: SearchCost) -> Rows:
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
        ("wall clock", _range(budget.wall_s(shape, pace), duration)),
        (f"{cost.slots.unit}-hours", _range(_hours(budget.device_s(shape, pace)), lambda hours: f"{hours:.3g}")),
        ("  not in them", "starting Ray and gangs once; gangs that slow each other down; other hardware than this"),
        *[("  counted as", "gangs that share a GPU take its time in turns: what they gain is not foreseen")]
        * (shape.devices_per_worker < 1),
    ]  # fmt: skip


def _disk_rows(cost: SearchCost) -> Rows:
    disk, how = cost.disk, "measured" if cost.timing else "counted"
    files = f"{disk.files} at once at most, {byte_size(disk.checkpoint)} each ({how}): {byte_size(disk.needed)}"
    return [("checkpoints", files), ("  free", f"{byte_size(disk.free)} in --storage")]


def _hours(seconds: Range) -> Range:
    return Range(*(value / HOUR_S for value in seconds))


def _range(values: Range, text: Callable[[float], str]) -> str:
    expected, least, most = map(text, values)
    if values.least == values.most:
        return expected
    return f"{expected} expected, {least} at least, {most} if no trial is stopped"
