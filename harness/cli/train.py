"""`s4 train`: trains one configuration."""

from __future__ import annotations

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
)
from harness.cli.slots import cluster_slots
from harness.cli.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.conduct import Task
    from harness.trials import TrialObserver


def train(
    preset: Preset = "digits_css",
    method: Annotated[
        str | None,
        typer.Option(help="Train the preset as supervised, mean_teacher, cutmix, contrastive, css_cross or css_mix."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    name: Name = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Train one configuration, recorded like a trial of a search."""
    with terminal(as_json) as speak:
        task = _prepare(preset, method, settings or [], storage, name, tracking_uri, workers)
        say_weights(task.config, speak)

        from harness.checkpoints import LATEST
        from harness.cli.conduct import PICTURE, conduct
        from harness.cluster import ray_session
        from harness.train_run import run_train
        from harness.trials import TrialState
        from trainers.figure import draw_checkpoint

        schedule = task.config.schedule
        speak.say(f"{task.folder.name}: {preset}, {schedule.steps} steps, a report every {schedule.evaluate_every}, "
                  f"{workers} workers")  # fmt: skip
        speak.say(f"results in {task.folder}, records at {task.tracking_uri}")
        folder = task.folder
        with ray_session(address, cpus=max(cores(), workers) if address == "local" else None):

            def work(observers: Sequence[TrialObserver]) -> None:
                use_gpu = cluster_slots().unit == "GPU"
                trial = run_train(task.config, workers, folder.parent, folder.name, observers, use_gpu)
                if trial.state is TrialState.COMPLETE:
                    draw_checkpoint(task.config, folder / LATEST, folder / PICTURE)

            results = conduct(task, speak, work)
        if (folder / PICTURE).exists():
            speak.say(f"picture: {folder / PICTURE}")
    if results.best is None:
        raise typer.Exit(1)


def _prepare(
    preset: str,
    method: str | None,
    words: list[str],
    storage: Path,
    name: str | None,
    tracking_uri: str | None,
    workers: int,
) -> Task:
    """Check everything that can be checked before anything starts."""
    from trainers.methods import method_settings
    from trainers.overrides import parse_settings

    settings = {**method_settings(method), **parse_settings(words)}
    config = base_config(preset, settings)
    folder = free_folder(storage, name, preset)

    from harness.cli.conduct import Task, tracking_uri_of
    from harness.experiment import CssExperiment
    from harness.search.objectives import Objective

    check_inputs(config, workers)
    uri = tracking_uri_of(tracking_uri)
    return Task("train", folder, preset, config, settings, uri, (Objective(CssExperiment(config).metric, "max"),), 1)
