"""`s4 train`: trains one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.help import RESOURCES
from harness.cli.options import (
    Address,
    CpusPerWorker,
    Json,
    Method,
    MlflowExperiment,
    Name,
    Preset,
    ProfileStart,
    Register,
    Resume,
    Settings,
    Storage,
    TrackingUri,
    given_options,
)
from harness.console import open_console
from harness.tracking.stores import EXPERIMENT
from trainers.overrides import parse_settings


def train(
    context: typer.Context,
    preset: Preset = "digits_css",
    method: Method = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN:MAX",
            rich_help_panel=RESOURCES,
            help="Processes that train together; MIN:MAX: as many as the cluster holds now, more or fewer later.",
        ),
    ] = "1",
    cpus_per_worker: CpusPerWorker = None,
    name: Name = None,
    resume: Resume = False,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    register: Register = False,
    profile_start: ProfileStart = False,
    as_json: Json = False,
) -> None:
    """Train one configuration, recorded like a trial of a search.

    Ctrl-C ends it in order, saved after its next step. With --resume --name NAME it goes on, after a crash too. Where a
    node is lost, it goes on from its last checkpoint: with N workers when there is room for them again, with MIN:MAX at
    once with what is left.

    Examples:
        s4 train digits_css
        s4 train mine.yaml --set optimizer.lr=0.01 --name slower
        s4 train --resume --name slower
    """
    with open_console(as_json) as console:
        from harness import api

        given = given_options(context)
        results = api.train(
            preset if "preset" in given or not resume else None,
            settings=parse_settings(settings or []) if "settings" in given else None,
            method=method, workers=workers, cpus_per_worker=cpus_per_worker, name=name, resume=resume, storage=storage,
            tracking_uri=tracking_uri, mlflow_experiment=experiment, address=address, register=register,
            profile_start=profile_start, command_began=context.obj, console=console,
        )  # fmt: skip
        console.result(results.to_dict())
    if results.best is None:
        raise typer.Exit(1)
