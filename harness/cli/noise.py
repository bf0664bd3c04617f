"""`s4 noise`: how far seeds scatter, and how many are needed to see a difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.ablation.run import Task, carry_out, prepare
from harness.cli.checks import say_weights
from harness.cli.options import Address, Json, Preset, Settings, Storage, TrackingUri, named_folder
from harness.console import Console, open_console
from harness.tables import Column, Table
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.ablation.results import Ablation
    from harness.statistics.power import Needed, Spread

METRICS = ("val/miou", "dev/miou")


def noise(
    preset: Preset = "digits_css",
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds, from 0 on. More can be added later.")] = 5,
    vary_data: Annotated[bool, typer.Option("--vary-data", help="The seed draws the data's splits, too.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train one seed together.")] = 1,
    gangs: Annotated[int | None, typer.Option(min=1, help="Trainings that run at once; default: what fits.")] = None,
    name: Annotated[str | None, typer.Option(help="Name; default: noise-PRESET.")] = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Train one config with several seeds: their spread, and how many seeds it takes to see a difference.

    The same command goes on where an interrupted one stopped; with more --seeds it trains only what is missing.
    """
    with open_console(as_json) as console:
        task = _prepare(preset, seeds, vary_data, workers, gangs, name, settings or [], storage, tracking_uri)
        say_weights(task.request.config, console)
        found = carry_out(task, address, console)
        _show(found, task.folder, console)


def _prepare(
    preset: str,
    seeds: int,
    vary_data: bool,
    workers: int,
    gangs: int | None,
    name: str | None,
    words: list[str],
    storage: Path,
    tracking_uri: str | None,
) -> Task:
    """Check everything that can be checked before anything starts."""
    from search_spaces.ablation import AblationPlan, Variant

    plan = AblationPlan(f"noise of {preset}", "the config as it is", preset, preset, (Variant(preset, {}),), "")
    folder = named_folder(storage, name or f"noise-{preset}")
    return prepare(plan, preset, words, range(seeds), vary_data, METRICS[0], folder, tracking_uri, workers, gangs)


def _show(found: Ablation, folder: Path, console: Console) -> None:
    """Write the scores, their spread and the table of seeds; of each metric.

    Raises:
        UsageError: fewer than two seeds came to their end.
    """
    from harness.statistics.power import DELTAS, seeds_table, spread, spread_of_differences

    base = found.request.base
    data: dict[str, Any] = {"name": found.name, "preset": base, "folder": str(folder), "metrics": {}}
    for metric in METRICS:
        scores = found.scores(base, metric)
        if len(scores) < 2:
            failed = ", ".join(f"seed {run.seed}: {run.error or run.state}" for run in found.outcomes if run.error)
            raise UsageError(f"two seeds must reach the horizon for a spread, {len(scores)} did ({failed}): mend that")
        own = spread([*scores.values()])
        needed = seeds_table(spread_of_differences(own), DELTAS)
        _say(metric, scores, own, console)
        if metric == METRICS[0]:
            console.table(_table(needed))
            console.say(
                "for a paired t-test at 0.05 to find the difference with a chance of 0.8, if the seeds of two configs "
                "have nothing in common (paired seeds may do with fewer); cautious: with a spread that the true one "
                f"exceeds once in five times, which {own.n} seeds allow"
            )
        data["metrics"][metric] = {
            "scores": {str(seed): score for seed, score in scores.items()},
            "mean": sum(scores.values()) / len(scores),
            **own._asdict(),
            "needed": [line._asdict() for line in needed],
        }
    console.result(data)


def _say(metric: str, scores: dict[int, float], own: Spread, console: Console) -> None:
    mean = sum(scores.values()) / len(scores)
    console.say(
        f"{metric}: {mean:.4f}, standard deviation over {own.n} seeds {own.std:.4f} "
        f"(95 % interval {own.low:.4f} to {own.high:.4f}): {' '.join(f'{score:.4f}' for score in scores.values())}"
    )


def _table(needed: list[Needed]) -> Table:
    columns = [Column("difference in mIoU", form="g"), Column("seeds", align="right"),
               Column("seeds, cautious", align="right")]  # fmt: skip
    rows = [[line.delta, *("> 10 000" if count is None else count for count in (line.seeds, line.seeds_upper))]
            for line in needed]  # fmt: skip
    return Table("seeds-needed", "", columns, rows)
