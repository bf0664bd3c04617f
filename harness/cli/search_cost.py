"""What a search costs, as numbers and as a table for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.cli.slots import Slots
from harness.cli.timing import Timing
from harness.search import budget
from harness.search.budget import Pace, Range, Shape

if TYPE_CHECKING:
    from rich.table import Table

GIB = 2**30
HOUR_S = 3600.0


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
    """Return the plan as a table for people."""
    from rich.table import Table

    shape = cost.shape
    table = Table(
        "", "", title=f"plan of {shape.trials} trials of {cost.preset} in space {cost.space}", show_header=False
    )
    for rows in (_rung_rows(cost), _time_rows(cost), _disk_rows(cost)):
        for name, value in rows:
            table.add_row(name, value)
        table.add_section()
    return table


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
        ("  measured", f"step {_time(timing.step_s)}, evaluation {_time(timing.evaluate_s)}, checkpoint "
                       f"{_time(timing.save_s)}, start of a trial {_time(timing.start_s)}"),
        ("a full trial", _time(pace.trial_s(shape.horizon, shape))),
        ("wall clock", _range(_hours(budget.wall_s(shape, pace)), lambda hours: _time(hours * HOUR_S))),
        (f"{cost.slots.unit}-hours", _range(_hours(budget.device_s(shape, pace)), lambda hours: f"{hours:.3g}")),
        ("  not in them", "starting Ray and gangs once; gangs that slow each other down; other hardware than this"),
    ]  # fmt: skip


def _disk_rows(cost: SearchCost) -> list[tuple[str, str]]:
    disk = cost.disk
    how = "measured" if cost.timing else "counted"
    return [
        (
            "checkpoints",
            f"{disk.files} at once at most, {size_text(disk.checkpoint)} each ({how}): {size_text(disk.needed)}",
        ),
        ("  free", f"{size_text(disk.free)} in --storage"),
    ]


def _hours(seconds: Range) -> Range:
    return Range(*(value / HOUR_S for value in seconds))


def _range(found: Range, text: Callable[[float], str]) -> str:
    if found.least == found.most:
        return text(found.expected)
    return f"{text(found.expected)} expected, {text(found.least)} at least, {text(found.most)} if no trial is stopped"


def _time(seconds: float) -> str:
    """Return seconds in the unit that people would use."""
    if seconds >= 2 * HOUR_S:
        return f"{seconds / HOUR_S:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def size_text(size: int) -> str:
    """Return bytes in the unit that people would use."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"
