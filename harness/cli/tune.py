"""`s4 tune`: searches a space of hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
    named_folder,
)
from harness.cli.slots import Slots, cluster_slots, gang_count, local_slots
from harness.cli.terminal import Terminal, terminal
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.cli.conduct import Task
    from harness.report import Results
    from harness.search.run import SearchPlan
    from harness.trials import TrialObserver, Value
    from search_spaces import Space
    from trainers.config import TrainConfig


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

    space: str
    trials: int
    gangs: int | None
    workers_per_gang: int
    scheduler: str
    sampler: str
    grace_steps: int | None
    reduction_factor: int
    seed: int
    retries: int
    hang_minutes: float
    recycle_after: int
    max_hours: float | None
    max_device_hours: float | None
    keep_checkpoints: int
    max_checkpoint_gib: float | None


LASTING = ("scheduler", "sampler", "grace_steps", "reduction_factor", "seed")
"""What a search keeps when it is resumed; the rest may change from session to session."""


def tune(
    context: typer.Context,
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
    hang_minutes: Annotated[
        float, typer.Option(min=0, help="A gang without a report for this long is started anew; 0: never.")
    ] = 60.0,
    recycle_after: Annotated[
        int, typer.Option(min=0, help="Trials after which a gang's processes are started anew; 0: never.")
    ] = 200,
    max_hours: Annotated[
        float | None, typer.Option(min=0, help="End, ready to be resumed, after this much wall clock in all.")
    ] = None,
    max_device_hours: Annotated[
        float | None, typer.Option(min=0, help="The same, for devices held times hours.")
    ] = None,
    keep_checkpoints: Annotated[int, typer.Option(min=0, help="Best trials whose checkpoints stay.")] = 5,
    max_checkpoint_gib: Annotated[
        float | None, typer.Option(min=0, help="What all checkpoints together may take.")
    ] = None,
    name: Name = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search of this --name.")] = False,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Search a space of hyperparameters: published values first, bad trials stopped early, all of it recorded.

    Ctrl-C ends a search in order: running trials are saved after their next step. With --resume --name NAME it goes on,
    after a crash too; options that are not given are those it began with.
    """
    wish = Wish(
        space, trials, gangs, workers_per_gang, scheduler.value, sampler.value, grace_steps, reduction_factor, seed,
        retries, hang_minutes, recycle_after, max_hours, max_device_hours, keep_checkpoints, max_checkpoint_gib,
    )  # fmt: skip
    given = {key for key in context.params if _is_given(context, key)}
    from harness.cli.conduct import resuming

    with terminal(as_json) as speak:
        if resume:
            task, wish = _go_on(preset, settings or [], storage, name, tracking_uri, wish, given)
        else:
            task = _begin(preset, settings or [], storage, name, tracking_uri, wish)
        say_weights(task.config, speak)
        again = resuming(task)
        try:
            results = _search(task, wish, address, speak, again)
        except KeyboardInterrupt:
            speak.say(f"interrupted: what was done is kept; go on with {again}")
            raise
    if not {"COMPLETE", "PRUNED"} & results.counts.keys():
        raise typer.Exit(1)


def _is_given(context: typer.Context, key: str) -> bool:
    """Return whether an option was given, on the command line or by the environment."""
    source = context.get_parameter_source(key)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _begin(
    preset: str, words: list[str], storage: Path, name: str | None, tracking_uri: str | None, wish: Wish
) -> Task:
    """Check everything that can be checked before anything starts, and write the manifest."""
    from search_spaces import load_space
    from trainers.overrides import parse_settings

    settings = parse_settings(words)
    config = base_config(preset, settings)
    space = load_space(wish.space)
    check_space(space, config, settings)
    grace(config.schedule.steps, config.schedule.evaluate_every, wish.grace_steps)
    folder = free_folder(storage, name, space.name)
    task = _task(folder, preset, settings, config, space, tracking_uri, wish)

    from harness.search.manifest import Manifest, write_manifest
    from trainers.data.splits import open_splits

    digest = open_splits(config.data).digest
    write_manifest(folder, Manifest(preset, settings, config, space, task.metric, digest, asdict(wish)))
    return task


def _go_on(
    preset: str,
    words: list[str],
    storage: Path,
    name: str | None,
    tracking_uri: str | None,
    wish: Wish,
    given: set[str],
) -> tuple[Task, Wish]:
    """Make the task of a search that has begun, as it began; refuse where it would not be the same.

    Raises:
        UsageError: there is no such search, or it would be another one now.
    """
    from harness.search.lock import sole_driver
    from harness.search.manifest import check_same, read_manifest
    from harness.search.resume import open_books
    from search_spaces import load_space
    from search_spaces.parameters import SpaceError
    from trainers.data.splits import open_splits
    from trainers.overrides import parse_settings

    if name is None:
        raise UsageError("--resume must come with the --name of a search, got none: s4 report shows the names")
    folder = named_folder(storage, name)
    manifest = read_manifest(folder)
    before = Wish(**manifest.plan)
    now = replace(before, **{field: getattr(wish, field) for field in asdict(wish) if field in given})
    settings = parse_settings(words) if "settings" in given else dict(manifest.settings)
    config = base_config(preset if "preset" in given else manifest.preset, settings)
    try:
        space = load_space(now.space)
    except SpaceError:
        if "space" in given:
            raise
        space = manifest.space  # its file is elsewhere, seen from here; the manifest holds its text
    lasting = {field: getattr(now, field) for field in LASTING}
    check_same(manifest, config, space, open_splits(config.data).digest, lasting, folder)
    task = _task(folder, manifest.preset, settings, config, space, tracking_uri, now)
    with sole_driver(folder):
        return replace(task, earlier=open_books(folder, folder.name, task.metric)), now


def _task(
    folder: Path,
    preset: str,
    settings: dict[str, Value],
    config: TrainConfig,
    space: Space,
    tracking_uri: str | None,
    wish: Wish,
) -> Task:
    from harness.cli.conduct import Task, tracking_uri_of
    from harness.experiment import CssExperiment

    check_inputs(config, wish.workers_per_gang)
    metric = CssExperiment(config).metric
    return Task("search", folder, preset, config, settings, tracking_uri_of(tracking_uri), metric, wish.trials, space)


def _search(task: Task, wish: Wish, address: str, speak: Terminal, again: str) -> Results:
    """Make the plan, print it, and search. The plan for this machine is made before Ray is started."""
    from harness.cli.conduct import conduct
    from harness.cluster import ray_session
    from harness.experiment import CssExperiment
    from harness.search.run import SearchBrokenError, SearchEnd, run_search

    assert task.space is not None  # noqa: S101  # a search has one
    space, ends = task.space, list[SearchEnd]()
    plan = _plan(task, wish, local_slots(), speak) if address == "local" else None
    with ray_session(address, cpus=cores() if plan else None):
        ready = plan or _plan(task, wish, cluster_slots(), speak)

        def work(observers: Sequence[TrialObserver]) -> None:
            ends.append(run_search(ready, CssExperiment(task.config), space, observers, task.earlier))

        try:
            results = conduct(task, speak, work)
        except SearchBrokenError as error:
            speak.say(f"failed: {error}")
            speak.say(f"once that is mended, go on with {again}")
            raise typer.Exit(1) from None
    if ends[0].reason is not None:
        speak.say(f"ended early: {ends[0].reason}; go on with {again}")
    return results


def _plan(task: Task, wish: Wish, slots: Slots, speak: Terminal) -> SearchPlan:
    from harness.search.run import SearchPlan

    schedule = task.config.schedule
    plan = SearchPlan(
        name=task.folder.name,
        storage=task.folder.parent,
        trials=wish.trials,
        gangs=gang_count(slots, wish.workers_per_gang, wish.gangs, wish.trials),
        workers_per_gang=wish.workers_per_gang,
        scheduler=wish.scheduler,
        sampler=wish.sampler,
        grace_steps=grace(schedule.steps, schedule.evaluate_every, wish.grace_steps),
        reduction_factor=wish.reduction_factor,
        seed=wish.seed,
        max_trial_retries=wish.retries,
        use_gpu=slots.unit == "GPU",
        hang_timeout_s=60 * wish.hang_minutes or None,
        recycle_after=wish.recycle_after,
        max_hours=wish.max_hours,
        max_device_hours=wish.max_device_hours,
        keep_checkpoints=wish.keep_checkpoints,
        max_checkpoint_gib=wish.max_checkpoint_gib,
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
