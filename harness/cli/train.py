"""`s4 train`: trains one configuration."""

from __future__ import annotations

import re
from dataclasses import replace
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
    cores,
    free_folder,
    given_options,
    named_folder,
)
from harness.cluster import cluster_slots
from harness.console import Console, open_console
from trainers.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.conduct import Task
    from harness.trials import TrialObserver, Value
    from trainers.config import TrainConfig

WORKERS = re.compile(r"(\d+)(?::(\d+))?")


def train(
    context: typer.Context,
    preset: Preset = "digits_css",
    method: Annotated[
        str | None,
        typer.Option(help="Train the preset as supervised, mean_teacher, cutmix, contrastive, css_cross or css_mix."),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Processes that train together; MIN:MAX: as many as the cluster holds now, more or fewer later.",
        ),
    ] = "1",
    name: Name = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training of this --name.")] = False,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Train one configuration, recorded like a trial of a search.

    Ctrl-C ends it in order, saved after its next step. With --resume --name NAME it goes on, after a crash too. Where a
    node is lost, it goes on from its last checkpoint: with N workers when there is room for them again, with MIN:MAX at
    once with what is left.
    """
    given = given_options(context)
    with open_console(as_json) as console:
        if resume:
            task, sizes = _go_on(preset, method, settings or [], storage, name, tracking_uri, workers, given)
        else:
            task, sizes = _begin(preset, method, settings or [], storage, name, tracking_uri, workers)
        say_weights(task.config, console)

        from harness.cli.conduct import resuming
        from harness.cluster import ray_session
        from harness.search.manifest import Origin, write_origin
        from trainers.data.splits import open_splits

        schedule, folder = task.config.schedule, task.folder
        console.say(f"{folder.name}: {task.preset}, {schedule.steps} steps, a report every {schedule.evaluate_every}, "
                  f"{workers} workers")  # fmt: skip
        console.say(f"results in {folder}, records at {task.tracking_uri}")
        digest = open_splits(task.config.data).digest
        with ray_session(address, cpus=max(cores(), sizes[-1]) if address == "local" else None):
            write_origin(folder, Origin(task.preset, task.settings, task.config, digest))
            try:
                best = _train(task, sizes, console)
            except KeyboardInterrupt:
                console.say(f"interrupted: what was done is kept; go on with {resuming(task)}")
                raise
    if not best:
        raise typer.Exit(1)


def _train(task: Task, sizes: tuple[int, ...], console: Console) -> bool:
    """Train, and draw what was learnt; return whether it got to its end."""
    from harness.cli.conduct import PICTURE, conduct
    from harness.run_folder import LATEST
    from harness.train_run import run_train
    from harness.trials import TrialState
    from trainers.figure import draw_checkpoint

    folder = task.folder

    def work(observers: Sequence[TrialObserver]) -> None:
        use_gpu = cluster_slots().unit == "GPU"
        trial = run_train(task.config, sizes, folder.parent, folder.name, observers, use_gpu, task.earlier)
        if trial.state is TrialState.COMPLETE:
            draw_checkpoint(task.config, folder / LATEST, folder / PICTURE)

    results = conduct(task, console, work)
    if (folder / PICTURE).exists():
        console.say(f"picture: {folder / PICTURE}")
    return results.best is not None


def _begin(
    preset: str,
    method: str | None,
    words: list[str],
    storage: Path,
    name: str | None,
    tracking_uri: str | None,
    workers: str,
) -> tuple[Task, tuple[int, ...]]:
    """Check everything that can be checked before anything starts."""
    settings = _settings(method, words)
    config = base_config(preset, settings)
    folder = free_folder(storage, name, preset)
    return _task(folder, preset, settings, config, tracking_uri, workers)


def _go_on(
    preset: str,
    method: str | None,
    words: list[str],
    storage: Path,
    name: str | None,
    tracking_uri: str | None,
    workers: str,
    given: set[str],
) -> tuple[Task, tuple[int, ...]]:
    """Make the task of a training that has begun; refuse where it would not be the same.

    Raises:
        UsageError: there is no such training, it would be another one now, or it is over.
    """
    from harness.event_log import LEDGER, read_ledger
    from harness.search.manifest import check_same_origin, read_origin
    from harness.trials import TrialState
    from trainers.data.splits import open_splits

    if name is None:
        raise UsageError("--resume must come with the --name of a training, got none: it is that of its folder")
    folder = named_folder(storage, name)
    before = read_origin(folder)
    settings = _settings(method, words) if given & {"settings", "method"} else dict(before.settings)
    config = base_config(preset if "preset" in given else before.preset, settings)
    otherwise = "begin another training with another --name"
    check_same_origin(before, config, open_splits(config.data).digest, "a training", otherwise)
    task, sizes = _task(folder, before.preset, settings, config, tracking_uri, workers)
    earlier = read_ledger(folder / LEDGER)
    done = earlier.trials.get(0)
    if done is not None and done.state is TrialState.COMPLETE:
        raise UsageError(f"a training that goes on must not be over, {name} is complete: s4 report {name} shows it")
    return replace(task, earlier=earlier), sizes


def _settings(method: str | None, words: list[str]) -> dict[str, Value]:
    from trainers.methods import method_settings
    from trainers.overrides import parse_settings

    return {**method_settings(method), **parse_settings(words)}


def _task(
    folder: Path, preset: str, settings: dict[str, Value], config: TrainConfig, tracking_uri: str | None, workers: str
) -> tuple[Task, tuple[int, ...]]:
    from harness.cli.conduct import Task, tracking_uri_of
    from harness.experiment import CssExperiment
    from harness.search.objectives import Objective

    sizes = worker_sizes(workers, config)
    check_inputs(config, sizes[0])
    uri = tracking_uri_of(tracking_uri)
    objectives = (Objective(CssExperiment(config).metric, "max"),)
    return Task("train", folder, preset, config, settings, uri, objectives, 1), sizes


def worker_sizes(text: str, config: TrainConfig) -> tuple[int, ...]:
    """Return how many workers may train together, ascending: N, or those from MIN to MAX that share the batches.

    Raises:
        UsageError: it is neither N nor MIN:MAX, or no number in between divides the batches.
    """
    from trainers.loader import check_batches

    match = WORKERS.fullmatch(text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise UsageError(
            f"--workers must be N or MIN:MAX with 1 <= MIN <= MAX, got {text}: give, for example, 2 or 1:4"
        )
    sizes, refused = [], ConfigError("")
    for size in range(least, most + 1):
        try:
            check_batches(config, size)
        except ConfigError as error:
            refused = error
        else:
            sizes.append(size)
    if not sizes:
        raise refused
    return tuple(sizes)
