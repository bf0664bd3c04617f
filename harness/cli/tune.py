"""`s4 tune`: searches a space of hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.checks import check_inputs, say_weights
from harness.cli.options import (
    Address,
    Json,
    Name,
    Preset,
    Settings,
    Storage,
    TrackingUri,
    base_config,
    check_space,
    cores,
    free_folder,
)
from harness.cli.slots import Slots, cluster_slots, gang_count, local_slots
from harness.cli.terminal import Terminal, terminal
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.cli.conduct import Task
    from harness.report import Results
    from harness.search.run import SearchPlan


class Scheduler(StrEnum):
    """What stops a trial early."""

    asha = "asha"
    none = "none"


class Sampler(StrEnum):
    """What proposes trials."""

    tpe = "tpe"
    random = "random"


@dataclass(frozen=True)
class Wish:
    """What was asked of the search itself; None means: choose."""

    trials: int
    gangs: int | None
    workers_per_gang: int
    scheduler: Scheduler
    sampler: Sampler
    grace_steps: int | None
    reduction_factor: int
    seed: int
    retries: int


def tune(
    preset: Preset = "digits_css",
    space: Annotated[str, typer.Option(help="Search space: css, css_quick, or a YAML file.")] = "css_quick",
    trials: Annotated[int, typer.Option(min=1, help="Configurations to try; the first is the published one.")] = 16,
    gangs: Annotated[int | None, typer.Option(min=1, help="Trials that run at once; default: what fits.")] = None,
    workers_per_gang: Annotated[int, typer.Option(min=1, help="Processes that train one trial together.")] = 1,
    scheduler: Annotated[Scheduler, typer.Option(help="What stops bad trials early.")] = Scheduler.asha,
    sampler: Annotated[Sampler, typer.Option(help="What proposes configurations.")] = Sampler.tpe,
    grace_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps before a trial may be stopped; default: a sixth of the horizon.")
    ] = None,
    reduction_factor: Annotated[int, typer.Option(min=2, help="One in this many trials passes a rung.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampler; a training's own is --set seed=...")] = 0,
    retries: Annotated[int, typer.Option(min=0, help="How often a trial whose workers died goes on.")] = 2,
    name: Name = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Search a space of hyperparameters: published values first, bad trials stopped early, all of it recorded."""
    wish = Wish(trials, gangs, workers_per_gang, scheduler, sampler, grace_steps, reduction_factor, seed, retries)
    with terminal(as_json) as speak:
        task = _prepare(preset, space, settings or [], storage, name, tracking_uri, wish)
        say_weights(task.config, speak)
        try:
            results = _search(task, wish, address, speak)
        except KeyboardInterrupt:
            speak.say(f"interrupted: what was done is kept, see it with s4 report {task.folder.name}")
            raise
    if not {"COMPLETE", "PRUNED"} & results.counts.keys():
        raise typer.Exit(1)


def _prepare(
    preset: str,
    space_name: str,
    words: list[str],
    storage: Path,
    name: str | None,
    tracking_uri: str | None,
    wish: Wish,
) -> Task:
    """Check everything that can be checked before anything starts."""
    from search_spaces import load_space
    from trainers.overrides import parse_settings

    settings = parse_settings(words)
    config = base_config(preset, settings)
    space = load_space(space_name)
    check_space(space, config, settings)
    grace(config.schedule.steps, config.schedule.evaluate_every, wish.grace_steps)
    folder = free_folder(storage, name, space.name)

    from harness.cli.conduct import Task, tracking_uri_of
    from harness.experiment import CssExperiment

    check_inputs(config, wish.workers_per_gang)
    metric = CssExperiment(config).metric
    uri = tracking_uri_of(tracking_uri)
    return Task("search", folder, preset, config, settings, uri, metric, wish.trials, space)


def _search(task: Task, wish: Wish, address: str, speak: Terminal) -> Results:
    """Make the plan, print it, and search. The plan for this machine is made before Ray is started."""
    from harness.cli.conduct import conduct
    from harness.cluster import ray_session
    from harness.experiment import CssExperiment
    from harness.search.run import SearchBrokenError, run_search

    assert task.space is not None  # noqa: S101  # a search has one
    space = task.space
    plan = _plan(task, wish, local_slots(), speak) if address == "local" else None
    with ray_session(address, cpus=cores() if plan else None):
        ready = plan or _plan(task, wish, cluster_slots(), speak)
        try:
            return conduct(task, speak, lambda seen: run_search(ready, CssExperiment(task.config), space, seen))
        except SearchBrokenError as error:
            speak.say(f"failed: {error}")
            raise typer.Exit(1) from None


def _plan(task: Task, wish: Wish, slots: Slots, speak: Terminal) -> SearchPlan:
    from harness.search.run import SearchPlan

    schedule = task.config.schedule
    plan = SearchPlan(
        name=task.folder.name,
        storage=task.folder.parent,
        trials=wish.trials,
        gangs=gang_count(slots, wish.workers_per_gang, wish.gangs, wish.trials),
        workers_per_gang=wish.workers_per_gang,
        scheduler=wish.scheduler.value,
        sampler=wish.sampler.value,
        grace_steps=grace(schedule.steps, schedule.evaluate_every, wish.grace_steps),
        reduction_factor=wish.reduction_factor,
        seed=wish.seed,
        max_trial_retries=wish.retries,
        use_gpu=slots.unit == "GPU",
    )
    for line in describe(plan, task, slots):
        speak.say(line)
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
        f"{steps} steps, a report every {every}; {early if plan.scheduler == 'asha' else 'no trial is stopped early'}",
        f"results in {task.folder}, records at {task.tracking_uri}",
    ]


def grace(steps: int, every: int, wished: int | None) -> int:
    """Return the steps before a trial may be stopped: as wished, or a sixth of the horizon, rounded up to a report.

    Raises:
        UsageError: more than the horizon.
    """
    if wished is not None and wished > steps:
        raise UsageError(f"--grace-steps must be at most the horizon, {steps} steps, got {wished}: lower it")
    return wished if wished is not None else min(-(-steps // (6 * every)) * every, steps)


def rungs(steps: int, grace_steps: int, reduction_factor: int) -> list[int]:
    """Return the steps at which ASHA decides: the grace period times powers of the factor, below the horizon."""
    found = []
    while grace_steps < steps:
        found.append(grace_steps)
        grace_steps *= reduction_factor
    return found
