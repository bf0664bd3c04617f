"""`s4 scale`: measures how training scales with workers; or simulates how long a search takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
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
from harness.cluster import Slots, cluster_slots, local_slots
from harness.console import Console, open_console
from harness.scaling.request import Mode, ScaleRequest, doubling, parse_counts
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.scaling.forecast import Outlook
    from harness.scaling.model import Sample
    from harness.scaling.report import Scaling
    from harness.scaling.simulate import Faults

SIMULATING = ("trials", "gangs", "workers_per_gang", "failures_per_day", "restart_seconds", "checkpoint_seconds",
              "retries", "scaling")  # fmt: skip
MEASURING = ("preset", "workers", "mode", "steps", "blocks", "warmup", "repeats", "settings", "name", "address",
             "tracking_uri")  # fmt: skip


def scale(
    context: typer.Context,
    preset: Preset = "digits_css",
    workers: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Worker counts, ascending; default: 1, 2, 4, ... as fits.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Constant batch: of each worker (weak), of all together (strong).")
    ] = Mode.weak,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a timed block.")] = 20,
    blocks: Annotated[int, typer.Option(min=1, help="Timed blocks of a repeat; their median counts.")] = 5,
    warmup: Annotated[int, typer.Option(min=2, help="Steps before them, which do not count.")] = 10,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each point is measured, in new processes.")] = 3,
    simulate: Annotated[
        str | None, typer.Option(metavar="SEARCH", help="Measure nothing: simulate searches of trials like this one's.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="With --simulate: trials of the search.")] = 1000,
    gangs: Annotated[str, typer.Option(metavar="G,G,...", help="With --simulate: trials at once.")] = "8,64",
    workers_per_gang: Annotated[
        int | None, typer.Option(min=1, help="With --simulate: processes of a trial; default: as in the search.")
    ] = None,
    failures_per_day: Annotated[
        str, typer.Option(metavar="X,X,...", help="With --simulate: failures of one worker a day.")
    ] = "0,0.1,1,10",
    restart_seconds: Annotated[float, typer.Option(min=0, help="With --simulate: of a gang that failed.")] = 15.0,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="With --simulate: between checkpoints.")] = 30.0,
    retries: Annotated[int, typer.Option(min=0, help="With --simulate: how often a trial goes on.")] = 2,
    scaling: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --simulate: a strong scaling that tells other workers' speed."),
    ] = None,
    name: Name = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Measure how training scales with workers: speed, efficiency, communication, input, bytes, memory; and predict.

    With --simulate SEARCH: how long many trials take with G gangs of N workers, and what each failure rate costs.
    """
    _refuse(given_options(context), simulate)
    with open_console(as_json) as console:
        if simulate is not None:
            from harness.scaling.simulate import Faults

            faults = Faults(restart_s=restart_seconds, checkpoint_s=checkpoint_seconds, retries=retries)
            found = _look_ahead(simulate, storage, trials, gangs, workers_per_gang, failures_per_day, faults, scaling)
            _show_outlook(found, console)
            return
        counts = parse_counts(workers, "--workers") if workers is not None else ()
        request = _request(preset, settings or [], mode, counts, (steps, blocks, warmup, repeats))
        if address == "local":
            request = _fitting(request, local_slots())
        folder = free_folder(storage, name, f"scale-{preset}")
        say_weights(request.config, console)
        _measure(request, folder, address, tracking_uri, console)


def _refuse(given: set[str], simulate: str | None) -> None:
    """Refuse options of the other half of this command.

    Raises:
        UsageError: which one.
    """
    other = sorted(given & set(SIMULATING if simulate is None else MEASURING))
    if other:
        named = {"settings": "set"}.get(other[0], other[0]).replace("_", "-")
        option = "PRESET" if named == "preset" else f"--{named}"
        rule = "go with --simulate" if simulate is None else "be left out with --simulate, which measures nothing"
        raise UsageError(f"{option} must {rule}, got {'none' if simulate is None else 'both'}: choose one")


def _request(
    preset: str, words: list[str], mode: Mode, counts: tuple[int, ...], lengths: tuple[int, int, int, int]
) -> ScaleRequest:
    """Check what can be checked before anything starts.

    Raises:
        ConfigError, DataError: the preset, a setting, the batch or the data is refused.
    """
    from trainers.overrides import parse_settings

    request = ScaleRequest(preset, base_config(preset, parse_settings(words)), mode, counts, *lengths)
    for workers in counts or (1,):
        check_inputs(request.config_of(workers), workers)
    return request


def _fitting(request: ScaleRequest, slots: Slots) -> ScaleRequest:
    """Return the request with worker counts: those asked for, or all of 1, 2, 4, ... that fit and share the batch.

    Raises:
        UsageError: more workers are asked for than fit.
    """
    if request.counts and request.counts[-1] > slots.count:
        raise UsageError(
            f"--workers must be at most the {slots.count} {slots.unit}s there are, got {request.counts[-1]}: workers "
            "that share one would be measured waiting for each other; ask for less, or join a cluster with --address"
        )
    return request if request.counts else replace(request, counts=tuple(filter(request.fits, doubling(slots.count))))


def _measure(request: ScaleRequest, folder: Path, address: str, tracking_uri: str | None, console: Console) -> None:
    """Measure, record and show."""
    from harness.cli.conduct import tracking_uri_of
    from harness.cluster import check_nodes, cluster_nodes, ray_session
    from harness.scaling.session import MeasurementError, ScaleRecord, measure_all
    from harness.tracking.stores import EXPERIMENT

    uri = tracking_uri_of(tracking_uri)
    with ray_session(address, cpus=cores() if address == "local" else None):
        slots = cluster_slots()
        request = _fitting(request, slots)
        check_nodes(folder)
        hosts = sum(node.resources.get(slots.unit, 0) >= 1 for node in cluster_nodes().nodes)
        _announce(request, folder, uri, console)
        record = ScaleRecord(uri, EXPERIMENT, folder, request)

        def tell(workers: int, repeat: int, sample: Sample) -> None:
            record.measured(workers, repeat, sample)
            plural = "" if workers == 1 else "s"
            console.say(
                f"[{repeat + 1}/{request.repeats}] {workers} worker{plural}: {sample['images_per_s']:.1f} images/s"
            )

        try:
            with record:
                samples = measure_all(request, folder / "gangs", slots.unit == "GPU", tell)
                shutil.rmtree(folder / "gangs", ignore_errors=True)  # nothing in it is worth keeping
                found = _conclude(request, samples, folder, slots.unit, hosts, uri)
                record.finish(found, folder)
        except MeasurementError as error:
            console.say(f"failed: {error}")
            raise typer.Exit(1) from None
        finally:
            delivery = record.close()
            if delivery.note:
                console.say(f"tracking: {delivery.note}")
    _show(found, folder, console)


def _announce(request: ScaleRequest, folder: Path, uri: str, console: Console) -> None:
    counts = ", ".join(map(str, request.counts))
    console.say(
        f"{folder.name}: {request.mode.value} scaling of {request.preset} over {counts} workers, "
        f"{request.repeats} x {request.total_steps} steps each"
    )
    console.say(f"results in {folder}, records at {uri}")


def _conclude(
    request: ScaleRequest, samples: Mapping[int, Sequence[Sample]], folder: Path, unit: str, hosts: int, uri: str
) -> Scaling:
    """Fit, predict, draw, and write the files."""
    from harness.scaling.model import PREDICTED, Fit, NotIdentifiedError, fit_all, gather_points
    from harness.scaling.report import CURVE, Scaling, draw_curve, write

    ahead = [count for count in PREDICTED if count not in samples and request.fits(count)]
    fit: Fit | None = None
    unfitted = ""
    try:
        fit = fit_all(request.mode, samples, {count: request.images_of(count) for count in ahead})
    except NotIdentifiedError as error:
        unfitted = str(error)
    points = tuple(gather_points(samples))
    found = Scaling(folder.name, request.as_plain(), unit, hosts, points, fit, unfitted, uri)
    draw_curve(found, folder / CURVE)
    write(folder, found)
    return found


def _show(found: Scaling, folder: Path, console: Console) -> None:
    from harness.scaling.report import CURVE, lines, to_json, to_table

    console.rich.print(to_table(found))
    for line in lines(found):
        console.say(line)
    console.say(f"curve: {folder / CURVE}")
    console.result({**to_json(found), "folder": str(folder)})


def _look_ahead(
    search: str,
    storage: Path,
    trials: int,
    gangs: str,
    workers: int | None,
    failures_per_day: str,
    faults: Faults,
    scaling: str | None,
) -> Outlook:
    """Simulate.

    Raises:
        UsageError: there is no such search, a number is none, or nothing tells the speed of that many workers.
    """
    from harness.cli.report import unknown_name
    from harness.scaling.forecast import look_ahead, read_times, step_ratio

    counts, rates = parse_counts(gangs, "--gangs"), _rates(failures_per_day)
    folder = named_folder(storage, search)
    if not folder.is_dir():
        raise UsageError(unknown_name(storage, search))
    times = read_times(folder)
    workers = workers or times.workers
    if workers != times.workers and scaling is None:
        raise UsageError(
            f"--workers-per-gang must be that of the search, {times.workers}, where no --scaling tells how much faster "
            f"others are, got {workers}: run s4 scale --mode strong and name it"
        )
    factor = step_ratio(named_folder(storage, scaling), workers, times.workers) if scaling else 1.0
    return look_ahead(search, times, trials, counts, workers, faults, rates, factor)


def _rates(text: str) -> list[float]:
    """Return numbers that are separated by commas.

    Raises:
        UsageError: one of them is none, or negative.
    """
    try:
        rates = [float(word) for word in text.split(",")]
    except ValueError:
        rates = [-1.0]
    if not all(0 <= rate < float("inf") for rate in rates):
        raise UsageError(
            f"--failures-per-day must be numbers from 0 on, with commas, got {text!r}: for example 0,0.1,1"
        )
    return rates


def _show_outlook(found: Outlook, console: Console) -> None:
    from harness.scaling.forecast import lines, to_json, to_table

    console.rich.print(to_table(found))
    for line in lines(found):
        console.say(line)
    console.result(to_json(found))
