"""`s4 plan`: the cost of a configuration or a search, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import Address, Json, Preset, Settings, Storage, Workers, given_options, options_of
from harness.console import open_console
from harness.experiment import CssExperiment
from harness.tuning.config import SearchConfig
from trainers.errors import UsageError
from trainers.overrides import parse_settings

TRAINING, SEARCH = "Of a training", "Of a search"
TEXTS = {
    "space": "Plan a search of this space, not a training.",
    "max_hours": "Refuse what is expected to take longer.",
    "max_device_hours": "Refuse what is expected to hold its devices for longer.",
}
PANELS = {
    SEARCH: ("space", "trials", "gangs", "gangs_per_gpu", "cpus_per_worker", "scheduler", "grace_steps",
             "reduction_factor", "keep_checkpoints", "max_hours", "max_device_hours"),
}  # fmt: skip


@options_of(SearchConfig, PANELS, TEXTS)
def plan(
    context: typer.Context,
    options: dict[str, Any],
    preset: Preset = "digits_css",
    settings: Settings = None,
    workers: Workers = 1,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="GIB", help="Memory of a worker's GPU; refuse what does not fit.", rich_help_panel=TRAINING
        ),
    ] = None,
    time: Annotated[
        bool,
        typer.Option(help="Time 20 real steps of the base configuration here.", rich_help_panel=SEARCH),
    ] = True,
    address: Address = "local",
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show what a training costs (counted, without data), or with --space what a search costs (20 steps are timed).

    Examples:
        s4 plan voc_css_92 --workers 4 --memory 24
        s4 plan --space css --trials 200 --max-hours 12
    """
    of_search = "space" in options
    other, kind, advice = options, "of a search", "add --space, for example --space css_quick"
    if of_search:
        options["workers"] = workers
        other = dict.fromkeys({"memory"} & given_options(context))
        kind, advice = "of a training", "leave it out, or leave out --space"
    for name in other:
        raise UsageError(f"--{name.replace('_', '-')} must be in the plan {kind}, got it in another: {advice}")
    with open_console(as_json) as console:
        from harness.planning import search_cost, training_cost

        experiment = CssExperiment.of(preset, parse_settings(settings or []))
        if of_search:
            search = search_cost.plan_search(experiment, SearchConfig.of(**options), storage, address, time)
            table, data = search_cost.to_table(search), search_cost.to_json(search)
        else:
            training = training_cost.plan_training(experiment, workers, memory)
            table, data = training_cost.to_table(training), training_cost.to_json(training)
        console.table(table)
        console.result(data)
