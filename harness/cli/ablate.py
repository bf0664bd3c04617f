"""`s4 ablate`, `s4 noise` and `s4 confirm`: trainings with paired seeds, and what may be said of their differences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Address, Json, MlflowExperiment, Preset, Register, Settings, Storage, TrackingUri
from harness.console import open_console
from harness.tracking.stores import EXPERIMENT
from trainers.errors import UsageError
from trainers.overrides import parse_settings

Seeds = Annotated[str, typer.Option(help="With commas; the same for every variant. More can be added later.")]
VaryData = Annotated[bool, typer.Option("--vary-data", help="The seed draws the data's splits, too.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that train one variant together.")]
Gangs = Annotated[int | None, typer.Option(min=1, help="Trainings that run at once; default: what fits.")]


def ablate(
    plan: Annotated[str, typer.Argument(help="What is compared: css_components, methods, ..., or a YAML file.")] = (
        "css_components"
    ),
    preset: Annotated[str | None, typer.Option(help="Base config; default: that of the plan.")] = None,
    seeds: Seeds = "0,1,2",
    only: Annotated[
        list[str] | None, typer.Option(help="Variants that are to have the seeds, with commas; the base has them, too.")
    ] = None,
    vary_data: VaryData = False,
    metric: Annotated[str, typer.Option(help="What variants are judged by: val/... or dev/...")] = "val/miou",
    workers_per_gang: Workers = 1,
    gangs: Gangs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would take, and stop.")] = False,
    step_seconds: Annotated[
        float | None, typer.Option(min=0, help="With --dry-run: seconds of a step, measured where it will train.")
    ] = None,
    card: Annotated[
        str | None, typer.Option(help="With --dry-run: GPU to estimate hours for: v100, a100, l40s, h100 or h200.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the ablation; default: that of the plan.")] = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    register: Register = False,
    as_json: Json = False,
) -> None:
    """Train variants of a config with the same seeds to the same horizon, and compare them pair by pair.

    Variants share the order of the data, the splits and the initialisation of each seed. The official validation images
    are read once, at the end. The same command goes on where an interrupted one stopped; with more --seeds it trains
    only what is missing. --only gives further seeds to the variants that matter and to the base.
    """
    if (step_seconds is not None or card is not None) and not dry_run:
        given = "--card" if step_seconds is None else "--step-seconds"
        raise UsageError(f"{given} must come with --dry-run, got it without: add --dry-run, or leave it out")
    if step_seconds is not None and card is not None:
        raise UsageError("hours must come from --step-seconds or from --card, got both: leave one out")
    with open_console(as_json) as console:
        from harness import api, session

        ablation = api.ablate(
            preset, plan=plan, seeds=parse_seeds(seeds),
            only=[word.strip() for words in only or () for word in words.split(",")], vary_data=vary_data,
            metric=metric, settings=parse_settings(settings or []), name=name, workers_per_gang=workers_per_gang,
            gangs=gangs, storage=storage, tracking_uri=tracking_uri,
            mlflow_experiment=experiment, address=address, dry_run=dry_run, register=register, console=console,
        )  # fmt: skip
        if dry_run:
            from harness.planning import ablation_cost

            folder = storage.resolve() / ablation.name
            cost = ablation_cost.plan_ablation(folder, ablation.request, workers_per_gang, step_seconds, card)
            table, numbers = ablation_cost.to_table(cost), ablation_cost.to_json(cost)
            session.show_runs(ablation, storage, console, table, numbers)
            return
        session.show_ablation(ablation, storage, console)
    if not ablation.winners:
        raise typer.Exit(1)


def noise(
    preset: Preset = "digits_css",
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds, from 0 on. More can be added later.")] = 5,
    vary_data: VaryData = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train one seed together.")] = 1,
    gangs: Gangs = None,
    name: Annotated[str | None, typer.Option(help="Name; default: noise-PRESET.")] = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    as_json: Json = False,
) -> None:
    """Train one config with several seeds: their spread, and how many seeds it takes to see a difference.

    The same command goes on where an interrupted one stopped; with more --seeds it trains only what is missing.
    """
    with open_console(as_json) as console:
        from harness import api, session

        ablation = api.noise(
            preset, seeds=seeds, vary_data=vary_data, settings=parse_settings(settings or []), name=name,
            workers_per_gang=workers, gangs=gangs, storage=storage, tracking_uri=tracking_uri,
            mlflow_experiment=experiment, address=address,
            console=console,
        )  # fmt: skip
        session.show_noise(ablation, storage, console)


def confirm(
    search: Annotated[str, typer.Argument(help="The search, by the name that s4 tune gave or was given.")],
    top: Annotated[int, typer.Option(min=1, help="How many of the search's best configurations.")] = 3,
    seeds: Annotated[str, typer.Option(help="At least two, with commas; the same for every configuration.")] = "0,1,2",
    vary_data: VaryData = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train one configuration together.")] = 1,
    gangs: Gangs = None,
    name: Annotated[str | None, typer.Option(help="Name of the confirmation; default: SEARCH-confirm.")] = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    as_json: Json = False,
) -> None:
    """Train a search's best configurations and the published baseline again, with paired seeds, to the full horizon.

    The one with the highest lower bound on dev, and the baseline, are then evaluated on the validation images, once.
    The same command goes on where an interrupted one stopped, and shows what a finished one found.
    """
    with open_console(as_json) as console:
        from harness import api, session

        ablation = api.confirm(
            search, top=top, seeds=parse_seeds(seeds), vary_data=vary_data, workers=workers, gangs=gangs, name=name,
            storage=storage, tracking_uri=tracking_uri,
            mlflow_experiment=experiment, address=address, console=console,
        )  # fmt: skip
        session.show_ablation(ablation, storage, console)
    if ablation.chosen is None:
        raise typer.Exit(1)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return seeds that are separated by commas.

    Raises:
        UsageError: one of them is no seed.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) < 2**31 for word in words):
        raise UsageError(
            f"--seeds must be whole numbers from 0 to {2**31 - 1} with commas, got {text!r}: for example 0,1,2"
        )
    return tuple(int(word) for word in words)
