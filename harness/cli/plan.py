"""`s4 plan`: the cost of a configuration or a search, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Address, Json, Preset, Settings, Storage, given_options
from harness.cli.wish import Scheduler
from harness.console import open_console
from trainers.errors import UsageError

TRAINING = ("workers", "memory")
SEARCH = ("trials", "gangs", "workers_per_gang", "scheduler", "grace_steps", "reduction_factor", "keep_checkpoints",
          "max_hours", "max_device_hours")  # fmt: skip


def plan(
    context: typer.Context,
    preset: Preset = "digits_css",
    settings: Settings = None,
    workers: Annotated[int, typer.Option(min=1, help="Of a training: processes that train together.")] = 1,
    memory: Annotated[
        float | None, typer.Option(min=0, metavar="GIB", help="Memory of a worker's GPU; refuse what does not fit.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Plan a search of this space; all below is about it.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Configurations to try.")] = 16,
    gangs: Annotated[int | None, typer.Option(min=1, help="Trials that run at once; default: what fits.")] = None,
    workers_per_gang: Annotated[int, typer.Option(min=1, help="Processes that train one trial.")] = 1,
    scheduler: Annotated[Scheduler, typer.Option(help="What stops bad trials early.")] = Scheduler.asha,
    grace_steps: Annotated[int | None, typer.Option(min=1, help="Steps before a trial may be stopped.")] = None,
    reduction_factor: Annotated[int, typer.Option(min=2, help="One in this many passes a rung.")] = 3,
    keep_checkpoints: Annotated[int, typer.Option(min=0, help="Of the best trials.")] = 5,
    max_hours: Annotated[float | None, typer.Option(min=0, help="Refuse what is expected to take longer.")] = None,
    max_device_hours: Annotated[
        float | None, typer.Option(min=0, help="Refuse what is expected to hold its devices for longer.")
    ] = None,
    time: Annotated[bool, typer.Option(help="Time 20 real steps of a search's base configuration here.")] = True,
    address: Address = "local",
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show what a training costs (counted, without data), or with --space what a search costs (20 steps are timed)."""
    other, kind = (SEARCH, "of a search") if space is None else (TRAINING, "of a training")
    advice = "add --space, for example --space css_quick" if space is None else "leave it out, or leave out --space"
    given = [name for name in other if name in given_options(context)]
    if given:
        raise UsageError(f"--{given[0].replace('_', '-')} must be in the plan {kind}, got it in another: {advice}")
    with open_console(as_json) as console:
        if space is None:
            from harness.planning import training_cost

            training = training_cost.plan_training(preset, settings or [], workers, memory)
            table, data = training_cost.to_table(training), training_cost.to_json(training)
        else:
            from harness.planning import search_cost

            options = search_cost.SearchOptions(
                trials,
                gangs,
                workers_per_gang,
                scheduler.value,
                grace_steps,
                reduction_factor,
                keep_checkpoints,
                max_hours,
                max_device_hours,
            )
            search = search_cost.plan_search(preset, space, settings or [], options, storage, address, time)
            table, data = search_cost.to_table(search), search_cost.to_json(search)
        console.table(table)
        console.result(data)
