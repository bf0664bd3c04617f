"""`s4 plan`: what a configuration or a search costs, before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Address, Json, Preset, Settings, Storage
from harness.cli.wish import Scheduler
from harness.console import open_console
from harness.planning.search_cost import Caps, Wish, plan_search
from harness.planning.training_cost import check_memory, make_plan, to_json, to_table
from trainers.errors import UsageError


def plan(
    preset: Preset = "digits_css",
    settings: Settings = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Of a training: processes that train together; 1.")] = None,
    memory: Annotated[
        float | None, typer.Option(min=0, metavar="GIB", help="Memory of a worker's GPU; refuse what does not fit.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Plan a search of this space; all below is about it.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Configurations to try; 16.")] = None,
    gangs: Annotated[int | None, typer.Option(min=1, help="Trials that run at once; default: what fits.")] = None,
    workers_per_gang: Annotated[int | None, typer.Option(min=1, help="Processes that train one trial; 1.")] = None,
    scheduler: Annotated[Scheduler | None, typer.Option(help="What stops bad trials early; asha.")] = None,
    grace_steps: Annotated[int | None, typer.Option(min=1, help="Steps before a trial may be stopped.")] = None,
    reduction_factor: Annotated[int | None, typer.Option(min=2, help="One in this many passes a rung; 3.")] = None,
    keep_checkpoints: Annotated[int | None, typer.Option(min=0, help="Of the best trials; 5.")] = None,
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
    wish = Wish(trials, gangs, workers_per_gang, scheduler, grace_steps, reduction_factor, keep_checkpoints)
    caps = Caps(max_hours, max_device_hours)
    with open_console(as_json) as console:
        if space is not None:
            _refuse({"--workers": workers, "--memory": memory}, "of a training", "leave it out, or leave out --space")
            plan_search(preset, space, settings or [], wish, caps, time, address, storage, console)
            return
        _refuse({**wish.given, **caps.given}, "of a search", "add --space, for example --space css_quick")
        found = make_plan(preset, settings or [], workers or 1)
        if memory is not None:
            check_memory(found, memory)
        console.table(to_table(found))
        console.result(to_json(found))


def _refuse(options: Mapping[str, object], what: str, advice: str) -> None:
    """Refuse options that are about the other kind of plan.

    Raises:
        UsageError: one of them was given.
    """
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} must be in the plan {what}, got it in another: {advice}")
