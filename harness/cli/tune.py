"""`s4 tune`: searches a space of hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.cli.options import (
    Address,
    Json,
    MlflowExperiment,
    Name,
    Preset,
    Register,
    Resume,
    Settings,
    Storage,
    TrackingUri,
    given_options,
    options_of,
)
from harness.console import open_console
from harness.tracking.stores import EXPERIMENT
from harness.tuning.config import HIDDEN, SearchConfig
from trainers.overrides import parse_settings


@options_of(SearchConfig, leave_out=HIDDEN)
def tune(
    context: typer.Context,
    options: dict[str, Any],
    preset: Preset = "digits_css",
    name: Name = None,
    resume: Resume = False,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    register: Register = False,
    as_json: Json = False,
) -> None:
    """Search a space of hyperparameters: published values first, bad trials stopped early, all of it recorded.

    Ctrl-C ends a search in order: running trials are saved after their next step. With --resume --name NAME it goes on,
    after a crash too; options that are not given are those it began with.
    """
    from harness import api

    given = given_options(context)
    with open_console(as_json) as console:
        results = api.search(
            preset if "preset" in given or not resume else None,
            settings=parse_settings(settings or []) if "settings" in given else None,
            name=name, resume=resume, storage=storage, tracking_uri=tracking_uri,
            mlflow_experiment=experiment, address=address, register=register, console=console,
            **options,
        )  # fmt: skip
        console.result(results.to_dict())
    if not {"COMPLETE", "PRUNED"} & results.counts.keys():
        raise typer.Exit(1)
