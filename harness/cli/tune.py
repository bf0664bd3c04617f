"""`s4 tune`: searches a space of hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.cli.help import LIMITS, RECORDS, RESOURCES, SAMPLER, WHAT
from harness.cli.options import (
    Address,
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
    options_of,
)
from harness.console import open_console
from harness.tracking.stores import EXPERIMENT
from harness.tuning.config import SearchConfig
from trainers.overrides import parse_settings

PANELS = {
    WHAT: ("space", "trials", "objective", "constraint", "warm_start"),
    SAMPLER: ("sampler", "seed", "grid_points", "scheduler", "grace_steps", "reduction_factor", "perturb_steps",
              "stop_collapsed"),
    RESOURCES: ("workers_per_gang", "cpus_per_worker", "gangs", "gangs_per_gpu"),
    LIMITS: ("max_hours", "max_device_hours", "terminator", "keep_checkpoints", "max_checkpoint_gib", "retries",
             "hang_minutes", "recycle_after"),
    RECORDS: ("study", "study_name"),
}  # fmt: skip
"""Options of a search by subject, all but `HIDDEN`."""


@options_of(SearchConfig, PANELS)
def tune(
    context: typer.Context,
    options: dict[str, Any],
    preset: Preset = "digits_css",
    method: Method = None,
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
    """Search a space of hyperparameters: the baseline first, bad trials stopped early, all of it recorded.

    Ctrl-C ends a search in order: running trials are saved after their next step. With --resume --name NAME it goes on,
    after a crash too; options that are not given are those it began with.

    Examples:
        s4 tune --space css_quick --trials 16
        s4 tune camvid_lite0 --space mine.yaml --trials 60 --max-hours 8
        s4 tune --resume --name css_quick-001 --trials 32
    """
    from harness import api

    given = given_options(context)
    with open_console(as_json) as console:
        results = api.search(
            preset if "preset" in given or not resume else None,
            settings=parse_settings(settings or []) if "settings" in given else None,
            method=method, name=name, resume=resume, storage=storage, tracking_uri=tracking_uri,
            mlflow_experiment=experiment, address=address, register=register, console=console,
            profile_start=profile_start, command_began=context.obj, **options,
        )  # fmt: skip
        console.result(results.to_dict())
    if not {"COMPLETE", "PRUNED"} & results.counts.keys():
        raise typer.Exit(1)
