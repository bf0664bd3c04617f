"""`s4 scale`: measures how training scales with workers; or simulates how long a search takes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.help import RESOURCES
from harness.cli.options import (
    Address,
    CpusPerWorker,
    Json,
    MlflowExperiment,
    Name,
    Preset,
    Settings,
    Storage,
    TrackingUri,
    given_options,
)
from harness.console import open_console
from harness.experiment import CssExperiment
from harness.run_folder import existing_folder, named_folder
from harness.tracking.stores import EXPERIMENT
from harness.tuning.config import WORKERS
from trainers.errors import UsageError
from trainers.overrides import parse_settings

MEASURE, SIMULATE = "Measurement", "Simulation"
SIMULATING = ("trials", "gangs", "failures_per_day", "restart_seconds", "checkpoint_seconds", "retries", "scaling")
MEASURING = ("preset", "cpus_per_worker", "mode", "steps", "blocks", "warmup", "repeats", "settings", "name", "address",
             "tracking_uri", "experiment")  # fmt: skip


def scale(
    context: typer.Context,
    preset: Preset = "digits_css",
    workers: Annotated[
        str | None,
        typer.Option(
            *WORKERS,
            metavar="N,N,...",
            rich_help_panel=RESOURCES,
            help="Worker counts, ascending; default: 1, 2, 4, ... as fits. With --simulate one, of a trial; default: "
            "as in the search.",
        ),
    ] = None,
    cpus_per_worker: CpusPerWorker = None,
    mode: Annotated[
        Literal["weak", "strong"],
        typer.Option(
            metavar="MODE",
            rich_help_panel=MEASURE,
            help="weak: constant batch of each worker; strong: of all together.",
        ),
    ] = "weak",
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps of a timed block.", rich_help_panel=MEASURE)
    ] = 20,
    blocks: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Timed blocks of a repeat; their median counts.", rich_help_panel=MEASURE
        ),
    ] = 5,
    warmup: Annotated[
        int,
        typer.Option(min=2, metavar="N", help="Steps before them, which do not count.", rich_help_panel=MEASURE),
    ] = 10,
    repeats: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Times that each point is measured, in new processes.", rich_help_panel=MEASURE
        ),
    ] = 3,
    simulate: Annotated[
        str | None,
        typer.Option(
            metavar="SEARCH",
            rich_help_panel=SIMULATE,
            help="Measure nothing: simulate searches of trials like this one's.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, metavar="N", help="Trials of the search.", rich_help_panel=SIMULATE)
    ] = 1000,
    gangs: Annotated[str, typer.Option(metavar="G,G,...", help="Trials at once.", rich_help_panel=SIMULATE)] = "8,64",
    failures_per_day: Annotated[
        str, typer.Option(metavar="X,X,...", help="Failures of one worker a day.", rich_help_panel=SIMULATE)
    ] = "0,0.1,1,10",
    restart_seconds: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Of a gang that failed.", rich_help_panel=SIMULATE)
    ] = 15.0,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Between checkpoints.", rich_help_panel=SIMULATE)
    ] = 30.0,
    retries: Annotated[
        int, typer.Option(min=0, metavar="N", help="How often a trial goes on.", rich_help_panel=SIMULATE)
    ] = 2,
    scaling: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A strong scaling that tells other workers' speed.", rich_help_panel=SIMULATE
        ),
    ] = None,
    name: Name = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    experiment: MlflowExperiment = EXPERIMENT,
    as_json: Json = False,
) -> None:
    """Measure how training scales with workers: speed, efficiency, communication, input, bytes, memory; and predict.

    With --simulate SEARCH: how long many trials take with G gangs of N workers, and what each failure rate costs.

    Examples:
        s4 scale digits_css --workers 1,2
        s4 scale --simulate css_quick-001 --trials 1000 --gangs 8,64 --workers 2
    """
    _refuse(given_options(context), simulate)
    with open_console(as_json) as console:
        if simulate is None:
            from harness.scaling.session import MeasurementError, make_request, run_scaling

            counts = parse_counts(workers, "--workers") if workers is not None else ()
            chosen = CssExperiment.of(preset, parse_settings(settings or []))
            lengths = (steps, blocks, warmup, repeats)
            request = make_request(chosen, mode, counts, *lengths, cpus=cpus_per_worker)
            try:
                run_scaling(request, storage, name, address, tracking_uri, console, experiment)
            except MeasurementError as error:
                console.say(f"failed: {error}")
                raise typer.Exit(1) from None
        else:
            from harness.scaling.forecast import forecast_search, read_times, show
            from harness.scaling.simulate import Faults

            counts, rates = parse_counts(gangs, "--gangs"), parse_rates(failures_per_day, "--failures-per-day")
            faults = Faults(restart_s=restart_seconds, checkpoint_s=checkpoint_seconds, retries=retries)
            times = read_times(existing_folder(storage, simulate))
            speeds = named_folder(storage, scaling) if scaling is not None else None
            each = parse_counts(workers, "--workers") if workers is not None else (None,)
            if len(each) > 1:
                raise UsageError(f"--workers must be one number with --simulate, got {workers}: choose one of them")
            show(forecast_search(times, trials, counts, rates, faults, each[0], speeds), console)


def _refuse(given: set[str], simulate: str | None) -> None:
    """Refuse options of the other half of this command."""
    other = sorted(given & set(SIMULATING if simulate is None else MEASURING))
    if other:
        named = {"settings": "set"}.get(other[0], other[0]).replace("_", "-")
        option = "PRESET" if named == "preset" else f"--{named}"
        rule = "go with --simulate" if simulate is None else "be left out with --simulate, which measures nothing"
        raise UsageError(f"{option} must {rule}, got {'none' if simulate is None else 'both'}: choose one")


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas, ascending.

    Raises:
        UsageError: they are not.
    """
    words = [word.strip() for word in text.split(",")]
    counts = tuple(int(word) for word in words if word.isdecimal())
    ascending = all(before < after for before, after in pairwise(counts))
    if len(counts) != len(words) or not ascending or counts[0] < 1:
        raise UsageError(f"{option} must be whole numbers from 1 on, ascending, got {text!r}: for example 1,2,4")
    return counts


def parse_rates(text: str, option: str) -> list[float]:
    """Return numbers that are separated by commas.

    Raises:
        UsageError: one of them is none, or negative.
    """
    try:
        rates = [float(word) for word in text.split(",")]
    except ValueError:
        rates = [-1.0]
    if not all(0 <= rate < float("inf") for rate in rates):
        raise UsageError(f"{option} must be numbers from 0 on, with commas, got {text!r}: for example 0,0.1,1")
    return rates
