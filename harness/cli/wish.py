"""What `s4 tune` is asked for, and the plan that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.cluster import Slots, gang_count
from harness.console import Console
from harness.search.config import grace, rungs
from trainers.errors import UsageError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from harness.cli.conduct import Task
    from harness.search.objectives import Constraint, Objective
    from harness.search.run import SearchPlan


class Scheduler(StrEnum):
    """What stops a trial early, or lets it go on with another's state."""

    asha = "asha"
    hyperband = "hyperband"
    median = "median"
    pbt = "pbt"
    none = "none"


class Sampler(StrEnum):
    """What proposes trials."""

    tpe = "tpe"
    gp = "gp"
    cmaes = "cmaes"
    nsga2 = "nsga2"
    random = "random"
    grid = "grid"


@dataclass(frozen=True)
class Wish:
    """What was asked of the search itself, by the names of the options; None means: choose."""

    space: str
    trials: int
    gangs: int | None
    workers_per_gang: int
    scheduler: str
    sampler: str
    objective: list[str]
    constraint: list[str]
    grace_steps: int | None
    reduction_factor: int
    perturb_steps: int | None
    grid_points: int
    seed: int
    warm_start: str | None
    stop_collapsed: bool
    terminator: bool
    max_hours: float | None
    max_device_hours: float | None
    keep_checkpoints: int
    max_checkpoint_gib: float | None
    retries: int
    hang_minutes: float
    recycle_after: int

    def objectives(self, default: str) -> tuple[Objective, ...]:
        """Return the objectives, the primary one first; the default where none was named.

        Raises:
            UsageError: one is malformed.
        """
        from harness.search.objectives import parse_objectives

        return parse_objectives(self.objective or [default])

    def constraints(self) -> tuple[Constraint, ...]:
        """Return the constraints.

        Raises:
            UsageError: one is malformed.
        """
        from harness.search.objectives import parse_constraint

        return tuple(parse_constraint(text) for text in self.constraint)


LASTING = (
    "scheduler", "sampler", "objective", "constraint", "grace_steps", "reduction_factor", "perturb_steps",
    "grid_points", "seed", "warm_start", "stop_collapsed",
)  # fmt: skip
"""What a search keeps when it is resumed; the rest may change from session to session."""


def check_wish(wish: Wish, default: str) -> None:
    """Refuse what cannot be done, before anything starts.

    Args:
        default: the objective where none was named.

    Raises:
        UsageError: with what would do.
    """
    from harness.search.samplers import check_sampler
    from harness.search.stopping import Limits

    objectives = wish.objectives(default)
    check_sampler(wish.sampler, objectives, bool(wish.constraints()), wish.warm_start is not None)
    Limits(wish.max_hours, wish.max_device_hours)
    if wish.terminator and len(objectives) > 1:
        raise UsageError(
            f"--terminator must have one objective, got {len(objectives)}: leave it out or name one objective"
        )
    if wish.scheduler == "pbt" and (wish.sampler != "random" or wish.warm_start or len(objectives) > 1):
        raise UsageError(
            "pbt draws a population and changes it by itself: use --sampler random, one objective, no --warm-start"
        )


def earlier_of(wish: Wish, task: Task, console: Console) -> tuple[FrozenTrial, ...]:
    """Return the trials that a new search learns from, and say how many there are.

    Raises:
        UsageError: there is no such search, or it sought something else.
    """
    if wish.warm_start is None or task.earlier.trials:
        return ()
    from harness.search.warm_start import earlier_trials

    assert task.space is not None  # noqa: S101  # a search has one
    source, named = wish.warm_start, task.folder.parent / wish.warm_start
    if "/" not in source and not source.startswith("mlflow:") and named.is_dir():
        source = str(named)
    objectives, constraints = task.objectives, wish.constraints()
    earlier = earlier_trials(source, task.space, objectives, constraints, tracking_uri=task.tracking_uri)
    console.say(f"warm start from {wish.warm_start}: {earlier.words()}")
    return tuple(earlier.trials)


def make_plan(task: Task, wish: Wish, slots: Slots, console: Console) -> SearchPlan:
    """Return the plan of a search on these slots, and print it.

    Raises:
        UsageError: the gangs do not fit, or the search to learn from is none.
    """
    from harness.search.run import SearchPlan
    from harness.search.stopping import Limits

    schedule = task.config.schedule
    plan = SearchPlan(
        name=task.folder.name,
        storage=task.folder.parent,
        trials=wish.trials,
        gangs=gang_count(slots, wish.workers_per_gang, wish.gangs, wish.trials),
        most_gangs=wish.trials if wish.gangs is None else 0,
        workers_per_gang=wish.workers_per_gang,
        scheduler=wish.scheduler,
        sampler=wish.sampler,
        objectives=task.objectives,
        constraints=wish.constraints(),
        warm_start=earlier_of(wish, task, console),
        grace_steps=grace(schedule.steps, schedule.evaluate_every, wish.grace_steps),
        reduction_factor=wish.reduction_factor,
        perturb_steps=wish.perturb_steps,
        grid_points=wish.grid_points,
        stop_collapsed=wish.stop_collapsed,
        seed=wish.seed,
        max_trial_retries=wish.retries,
        use_gpu=slots.unit == "GPU",
        hang_timeout_s=60 * wish.hang_minutes or None,
        recycle_after=wish.recycle_after,
        limits=Limits(wish.max_hours, wish.max_device_hours, wish.terminator),
        keep_checkpoints=wish.keep_checkpoints,
        max_checkpoint_gib=wish.max_checkpoint_gib,
    )
    for line in describe(plan, task, slots):
        console.say(line)
    return plan


def describe(plan: SearchPlan, task: Task, slots: Slots) -> list[str]:
    """Return the plan in a few lines."""
    steps, every = task.config.schedule.steps, task.config.schedule.evaluate_every
    workers = plan.gangs * plan.workers_per_gang
    stops = ", ".join(str(rung) for rung in rungs(steps, plan.grace_steps, plan.reduction_factor))
    early = f"asha stops all but 1 in {plan.reduction_factor} at steps {stops}" if stops else "asha has no rung"
    space = task.space.name if task.space else ""
    return [
        f"{plan.name}: {plan.trials} trials of {task.preset} in space {space} ({len(task.paths)} parameters), "
        f"sampler {plan.sampler}",
        f"{plan.gangs} gangs x {plan.workers_per_gang} workers = {workers} of {slots.count} {slots.unit}s; horizon "
        f"{steps} steps, a report every {every}; {early if plan.scheduler == 'asha' else plan.scheduler}",
        f"results in {task.folder}, records at {task.tracking_uri}",
    ]
