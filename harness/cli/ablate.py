"""`s4 ablate`: variants of a config over paired seeds, and what may be said of their differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.ablation.run import Task, carry_out, prepare
from harness.cli.checks import say_weights
from harness.cli.fixed_runs import parse_seeds
from harness.cli.options import Address, Json, Settings, Storage, TrackingUri, named_folder
from harness.console import Console, open_console
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.ablation.results import Ablation
    from search_spaces.ablation import AblationPlan

METRIC = "val/miou"


def ablate(
    plan: Annotated[str, typer.Argument(help="What is compared: css_components, methods, ..., or a YAML file.")] = (
        "css_components"
    ),
    preset: Annotated[str | None, typer.Option(help="Base config; default: that of the plan.")] = None,
    seeds: Annotated[str, typer.Option(help="With commas; the same for every variant. More can be added later.")] = (
        "0,1,2"
    ),
    only: Annotated[
        str | None, typer.Option(help="Variants that are to have the seeds, with commas; the base has them, too.")
    ] = None,
    vary_data: Annotated[bool, typer.Option("--vary-data", help="The seed draws the data's splits, too.")] = False,
    metric: Annotated[str, typer.Option(help="What variants are judged by: val/... or dev/...")] = METRIC,
    workers_per_gang: Annotated[int, typer.Option(min=1, help="Processes that train one variant together.")] = 1,
    gangs: Annotated[int | None, typer.Option(min=1, help="Trainings that run at once; default: what fits.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be trained, and stop.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the ablation; default: that of the plan.")] = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Train variants of a config with the same seeds to the same horizon, and compare them pair by pair.

    Variants share the order of the data, the splits and the initialisation of each seed. The official validation images
    are read once, at the end. The same command goes on where an interrupted one stopped; with more --seeds it trains
    only what is missing. --only gives further seeds to the variants that matter and to the base.
    """
    with open_console(as_json) as console:
        task = _prepare(
            plan, preset, parse_seeds(seeds), only, vary_data, metric, workers_per_gang, gangs, name, settings or [],
            storage, tracking_uri,
        )  # fmt: skip
        if dry_run:
            _list(task, console)
            return
        say_weights(task.request.config, console)
        found = carry_out(task, address, console)
        _show(found, task.folder, console)
    if found.winner is None:
        raise typer.Exit(1)


def _prepare(
    plan: str,
    preset: str | None,
    seeds: tuple[int, ...],
    only: str | None,
    vary_data: bool,
    metric: str,
    workers: int,
    gangs: int | None,
    name: str | None,
    words: list[str],
    storage: Path,
    tracking_uri: str | None,
) -> Task:
    """Check everything that can be checked before anything starts."""
    from search_spaces.ablation import load_plan

    if not metric.startswith(("val/", "dev/")):
        raise UsageError(f"--metric must be one of an evaluation, val/... or dev/..., got {metric!r}: take val/miou")
    found = load_plan(plan)
    chosen = _preset(found, preset)
    folder = named_folder(storage, name or found.name)
    variants = [word.strip() for word in only.split(",")] if only is not None else []
    return prepare(found, chosen, words, seeds, vary_data, metric, folder, tracking_uri, workers, gangs, variants)


def _preset(plan: AblationPlan, given: str | None) -> str:
    """Return the preset that is asked for, or else that of the plan.

    Raises:
        UsageError: there is neither.
    """
    chosen = given or plan.preset
    if chosen is None:
        raise UsageError(f"an ablation must have a base config, plan {plan.name} names none: give --preset")
    return chosen


def _list(task: Task, console: Console) -> None:
    """List every run of the ablation, whether it is done, and what its variant sets."""
    from harness.event_log import LEDGER, read_ledger
    from harness.tables import Column, Table

    request = task.request
    trials = read_ledger(task.folder / LEDGER).trials if (task.folder / LEDGER).exists() else {}
    columns = [Column(title) for title in ("run", "variant", "seed", "state", f"differs from {request.base} in")]
    rows, cells = [], []
    for number, run in enumerate(request.runs):
        state = str(trials[number].state) if number in trials else "to train"
        difference = request.difference(run.variant)
        words = ", ".join(f"{path}={value}" for path, value in difference.items()) or None
        cells.append((number, run.variant, run.seed, state, words))
        rows.append({"run": number, "variant": run.variant, "seed": run.seed, "state": state, "difference": difference})
    console.table(Table("runs", "", columns, cells))
    missing = sum(row["state"] not in ("COMPLETE", "PRUNED", "FAIL") for row in rows)
    steps = request.config.schedule.steps
    console.say(f"{task.folder.name}: {len(rows)} trainings of {steps} steps, {missing} of them to train")
    console.result({"name": task.folder.name, "plan": request.plan, "runs": rows, "missing": missing, "steps": steps})


def _show(found: Ablation, folder: Path, console: Console) -> None:
    from harness.ablation.results import to_json
    from harness.ablation.table import lines, to_table
    from harness.cli.conduct import further

    console.table(to_table(found))
    for line in lines(found):
        console.say(line)
    console.say(f"again: {further(folder, found.tracking_uri)}")
    console.result({**to_json(found), "folder": str(folder)})
