"""`s4 tune`: searches a space of hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
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
    given_options,
    named_folder,
)
from harness.cli.wish import LASTING, Sampler, Scheduler, Wish, check_wish, make_plan
from harness.cluster import cluster_slots, local_slots
from harness.console import Console, open_console
from harness.search.config import grace
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.cli.conduct import Task
    from harness.reporting.results import Results
    from harness.trials import TrialObserver, Value
    from search_spaces import Space
    from trainers.config import TrainConfig


def tune(
    context: typer.Context,
    preset: Preset = "digits_css",
    space: Annotated[str, typer.Option(help="Search space: css, css_quick, or a YAML file.")] = "css_quick",
    trials: Annotated[int, typer.Option(min=1, help="Configurations to try; the first is the published one.")] = 16,
    gangs: Annotated[int | None, typer.Option(min=1, help="Trials that run at once; default: what fits.")] = None,
    workers_per_gang: Annotated[int, typer.Option(min=1, help="Processes that train one trial together.")] = 1,
    scheduler: Annotated[Scheduler, typer.Option(help="What stops bad trials early.")] = Scheduler.asha,
    sampler: Annotated[Sampler, typer.Option(help="What proposes configurations.")] = Sampler.tpe,
    objective: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC[:min]", help="What is sought, default dev/miou; repeated: the Pareto front."),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC<=NUMBER", help="What the sampler learns to keep, also >=. Repeatable."),
    ] = None,
    grace_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps before a trial may be stopped; default: a sixth of the horizon.")
    ] = None,
    reduction_factor: Annotated[int, typer.Option(min=2, help="One in this many trials passes a rung.")] = 3,
    perturb_steps: Annotated[
        int | None, typer.Option(min=1, help="With pbt: steps between two exploits; default: the grace steps.")
    ] = None,
    grid_points: Annotated[int, typer.Option(min=1, help="With grid: values of each number.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampler; a training's own is --set seed=...")] = 0,
    warm_start: Annotated[
        str | None,
        typer.Option(metavar="SEARCH", help="Learn from an earlier search: name, folder, mlflow:EXPERIMENT/SEARCH."),
    ] = None,
    stop_collapsed: Annotated[bool, typer.Option(help="Stop a trial whose teacher predicts one class only.")] = True,
    terminator: Annotated[
        bool, typer.Option("--terminator", help="End when 30 complete trials in a row brought nothing better.")
    ] = False,
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
    retries: Annotated[int, typer.Option(min=0, help="How often a trial whose workers died goes on.")] = 2,
    hang_minutes: Annotated[
        float, typer.Option(min=0, help="A gang without a report for this long is started anew; 0: never.")
    ] = 60.0,
    recycle_after: Annotated[
        int, typer.Option(min=0, help="Trials after which a gang's processes are started anew; 0: never.")
    ] = 200,
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
        space=space,
        trials=trials,
        gangs=gangs,
        workers_per_gang=workers_per_gang,
        scheduler=scheduler.value,
        sampler=sampler.value,
        objective=list(objective or []),
        constraint=list(constraint or []),
        grace_steps=grace_steps,
        reduction_factor=reduction_factor,
        perturb_steps=perturb_steps,
        grid_points=grid_points,
        seed=seed,
        warm_start=warm_start,
        stop_collapsed=stop_collapsed,
        terminator=terminator,
        max_hours=max_hours,
        max_device_hours=max_device_hours,
        keep_checkpoints=keep_checkpoints,
        max_checkpoint_gib=max_checkpoint_gib,
        retries=retries,
        hang_minutes=hang_minutes,
        recycle_after=recycle_after,
    )
    given = given_options(context)
    from harness.cli.conduct import resuming

    with open_console(as_json) as console:
        if resume:
            task, wish = _go_on(preset, settings or [], storage, name, tracking_uri, wish, given)
        else:
            task = _begin(preset, settings or [], storage, name, tracking_uri, wish)
        say_weights(task.config, console)
        again = resuming(task)
        try:
            results = _search(task, wish, address, console, again)
        except KeyboardInterrupt:
            console.say(f"interrupted: what was done is kept; go on with {again}")
            raise
    if not {"COMPLETE", "PRUNED"} & results.counts.keys():
        raise typer.Exit(1)


def _begin(
    preset: str, words: list[str], storage: Path, name: str | None, tracking_uri: str | None, wish: Wish
) -> Task:
    """Check everything that can be checked before anything starts."""
    from search_spaces import load_space
    from trainers.overrides import parse_settings

    settings = parse_settings(words)
    config = base_config(preset, settings)
    space = load_space(wish.space)
    check_space(space, config, settings)
    grace(config.schedule.steps, config.schedule.evaluate_every, wish.grace_steps)
    folder = free_folder(storage, name, space.name)
    return _task(folder, preset, settings, config, space, tracking_uri, wish)


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
    from harness.run_folder import sole_driver
    from harness.search.manifest import check_same, read_manifest
    from harness.search.study import reconcile
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
        return replace(task, earlier=reconcile(folder, folder.name, task.objective)), now


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
    default = CssExperiment(config).metric
    check_wish(wish, default)
    objectives = wish.objectives(default)
    uri = tracking_uri_of(tracking_uri)
    return Task("search", folder, preset, config, settings, uri, objectives, wish.trials, space)


def _search(task: Task, wish: Wish, address: str, console: Console, again: str) -> Results:
    """Make the plan, print it, and search. The plan for this machine is made before Ray is started."""
    from harness.cli.conduct import conduct
    from harness.cluster import ray_session
    from harness.experiment import CssExperiment
    from harness.search.manifest import Manifest, write_manifest
    from harness.search.run import SearchBrokenError, SearchEnd, run_search
    from trainers.data.splits import open_splits

    assert task.space is not None  # noqa: S101  # a search has one
    space, ends = task.space, list[SearchEnd]()
    plan = make_plan(task, wish, local_slots(), console) if address == "local" else None
    with ray_session(address, cpus=cores() if plan else None):
        ready = plan or make_plan(task, wish, cluster_slots(), console)

        digest = open_splits(task.config.data).digest
        asked = Manifest(task.preset, task.settings, task.config, digest, space, task.objective.metric, asdict(wish))
        write_manifest(task.folder, asked)

        def work(observers: Sequence[TrialObserver]) -> None:
            ends.append(run_search(ready, CssExperiment(task.config), space, observers, task.earlier))

        try:
            results = conduct(task, console, work)
        except SearchBrokenError as error:
            console.say(f"failed: {error}")
            console.say(f"once that is mended, go on with {again}")
            raise typer.Exit(1) from None
    if ends[0].reason is not None:
        console.say(f"ended early: {ends[0].reason}; go on with {again}")
    return results
