"""`s4 ablate`, `s4 noise` and `s4 confirm`: trainings with paired seeds, and what may be said of their differences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.help import RECORDS, WHAT
from harness.cli.options import (
    Address,
    CpusPerWorker,
    Gangs,
    GangsPerGpu,
    Json,
    MlflowExperiment,
    Preset,
    ProfileStart,
    Register,
    Settings,
    Storage,
    TrackingUri,
    Workers,
    runs_here,
)
from harness.console import open_console
from harness.tracking.stores import EXPERIMENT
from trainers.errors import UsageError
from trainers.overrides import parse_settings

DRY = "Dry run"
MOST_SEEDS = 1000
"""That a lone number counts; a larger one is meant as a seed."""
Seeds = Annotated[
    str,
    typer.Option(metavar="SEEDS", help="With commas, or how many from 0 on: 3 is 0,1,2.", rich_help_panel=WHAT),
]
VaryData = Annotated[
    bool, typer.Option("--vary-data", help="The seed draws the data's splits, too.", rich_help_panel=WHAT)
]


def ablate(
    context: typer.Context,
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="What is compared: a plan of s4 list plans, or a YAML file.")
    ] = "css_components",
    preset: Annotated[
        str | None, typer.Option(metavar="PRESET", help="Base config; default: the plan's.", rich_help_panel=WHAT)
    ] = None,
    seeds: Seeds = "0,1,2",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VARIANTS",
            rich_help_panel=WHAT,
            help="Variants that are to have the seeds, with commas; the base has them, too.",
        ),
    ] = None,
    vary_data: VaryData = False,
    metric: Annotated[
        str,
        typer.Option(
            metavar="METRIC", help="What variants are judged by: val/..., test/... or dev/...", rich_help_panel=WHAT
        ),
    ] = "val/miou",
    workers: Workers = 1,
    cpus_per_worker: CpusPerWorker = None,
    gangs: Gangs = None,
    gangs_per_gpu: GangsPerGpu = "1",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would take, and stop.", rich_help_panel=DRY)
    ] = False,
    step_seconds: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Of a step, measured where it will train.", rich_help_panel=DRY),
    ] = None,
    card: Annotated[
        str | None,
        typer.Option(metavar="GPU", help="Estimate hours for it: v100, a100, l40s, h100 or h200.", rich_help_panel=DRY),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the ablation; default: the plan's.", rich_help_panel=RECORDS),
    ] = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    register: Register = False,
    profile_start: ProfileStart = False,
    as_json: Json = False,
) -> None:
    """Train variants of a config with the same seeds to the same horizon, and compare them pair by pair.

    Variants share the order of the data, the splits and the initialisation of each seed. The official validation images
    are read once, at the end. The same command goes on where an interrupted one stopped; with more --seeds it trains
    only what is missing. --only gives further seeds to the variants that matter and to the base.

    Examples:
        s4 ablate css_components --seeds 5
        s4 ablate mine.yaml --preset camvid_css --seeds 0,1,2 --dry-run --card a100
        s4 ablate methods --seeds 0,1,2,3,4 --only css_mix
    """
    if (step_seconds is not None or card is not None) and not dry_run:
        given = "--card" if step_seconds is None else "--step-seconds"
        raise UsageError(f"{given} must come with --dry-run, got it without: add --dry-run, or leave it out")
    if step_seconds is not None and card is not None:
        raise UsageError("hours must come from --step-seconds or from --card, got both: leave one out")
    with open_console(as_json) as console:
        from harness import api, showing

        ablation = api.ablate(
            preset, plan=plan, seeds=parse_seeds(seeds),
            only=[word.strip() for words in only or () for word in words.split(",")], vary_data=vary_data,
            metric=metric, settings=parse_settings(settings or []), name=name, workers=workers,
            cpus_per_worker=cpus_per_worker, gangs=gangs, gangs_per_gpu=gangs_per_gpu, storage=storage,
            tracking_uri=tracking_uri,
            mlflow_experiment=experiment, address=address, dry_run=dry_run, register=register,
            profile_start=profile_start, command_began=context.obj, console=console,
        )  # fmt: skip
        if dry_run:
            from harness.planning import ablation_cost

            folder = storage.resolve() / ablation.name
            cost = ablation_cost.plan_ablation(folder, ablation.request, workers, step_seconds, card)
            table, numbers = ablation_cost.to_table(cost), ablation_cost.to_json(cost)
            showing.show_runs(ablation, storage, console, table, numbers)
            return
        showing.show_ablation(ablation, storage, console)
    if not ablation.winners:
        raise typer.Exit(1)


def noise(
    context: typer.Context,
    preset: Preset = "digits_css",
    seeds: Seeds = "5",
    vary_data: VaryData = False,
    workers: Workers = 1,
    cpus_per_worker: CpusPerWorker = None,
    gangs: Gangs = None,
    gangs_per_gpu: GangsPerGpu = "1",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: noise-PRESET.", rich_help_panel=RECORDS)
    ] = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    profile_start: ProfileStart = False,
    as_json: Json = False,
) -> None:
    """Train one config with several seeds: their spread, and how many seeds it takes to see a difference.

    The same command goes on where an interrupted one stopped; with more --seeds it trains only what is missing.

    Examples:
        s4 noise digits_css --seeds 5
        s4 noise mine.yaml --seeds 0,1,2 --set schedule.steps=300
    """
    with open_console(as_json) as console:
        from harness import api, showing

        ablation = api.noise(
            preset, seeds=parse_seeds(seeds), vary_data=vary_data, settings=parse_settings(settings or []), name=name,
            workers=workers, cpus_per_worker=cpus_per_worker, gangs=gangs, gangs_per_gpu=gangs_per_gpu,
            storage=storage, tracking_uri=tracking_uri,
            mlflow_experiment=experiment, address=address, profile_start=profile_start,
            command_began=context.obj, console=console,
        )  # fmt: skip
        showing.show_noise(ablation, storage, console)


def confirm(
    context: typer.Context,
    search: Annotated[
        str,
        typer.Argument(metavar="SEARCH", help="By the name that s4 tune gave or was given.", autocompletion=runs_here),
    ],
    top: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="How many of the search's best configurations.", rich_help_panel=WHAT),
    ] = 3,
    seeds: Seeds = "0,1,2",
    vary_data: VaryData = False,
    workers: Workers = 1,
    cpus_per_worker: CpusPerWorker = None,
    gangs: Gangs = None,
    gangs_per_gpu: GangsPerGpu = "1",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: SEARCH-confirm.", rich_help_panel=RECORDS)
    ] = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    profile_start: ProfileStart = False,
    as_json: Json = False,
) -> None:
    """Train a search's best configurations and its baseline again, with paired seeds, to the full horizon.

    The one with the highest lower bound on dev, and the baseline, are then evaluated on the validation images, once.
    The same command goes on where an interrupted one stopped, and shows what a finished one found.

    Examples:
        s4 confirm css_quick-001
        s4 confirm css_quick-001 --top 2 --seeds 5
    """
    with open_console(as_json) as console:
        from harness import api, showing

        ablation = api.confirm(
            search, top=top, seeds=parse_seeds(seeds), vary_data=vary_data, workers=workers,
            cpus_per_worker=cpus_per_worker, gangs=gangs, gangs_per_gpu=gangs_per_gpu, name=name, storage=storage,
            tracking_uri=tracking_uri,
            mlflow_experiment=experiment, address=address, profile_start=profile_start,
            command_began=context.obj, console=console,
        )  # fmt: skip
        showing.show_ablation(ablation, storage, console)
    if ablation.chosen is None:
        raise typer.Exit(1)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return seeds that are separated by commas, or as many as a lone number says, from 0 on.

    Raises:
        UsageError: one of them is no seed.
    """
    words = text.removesuffix(",").split(",")
    if not all(word.strip().isdecimal() and int(word) < 2**31 for word in words) or text.strip() == "0":
        raise UsageError(
            f"--seeds must be whole numbers from 0 to {2**31 - 1} with commas, or how many from 0 on, got {text!r}: "
            "for example 0,1,2 or 3"
        )
    if "," in text:
        return tuple(int(word) for word in words)
    if int(text) > MOST_SEEDS:
        raise UsageError(f"--seeds must count at most {MOST_SEEDS}, got {text}: write {text}, for this one seed")
    return tuple(range(int(text)))
