"""`s4 data check`: the data of a preset, what of it is missing, and where to get it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, Preset, Settings
from harness.console import open_console
from harness.experiment import CssExperiment
from trainers.overrides import parse_settings

if TYPE_CHECKING:
    from trainers.data.inventory import Inventory

INCOMPLETE = 2
"""Exit code where something is missing."""

data = typer.Typer(help="Look at the data of a preset.", no_args_is_help=True)


@data.callback()
def group() -> None:
    """Look at the data of a preset."""


@data.command()
def check(
    preset: Preset = "digits_css",
    settings: Settings = None,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image and mask; takes minutes.")] = False,
    as_json: Json = False,
) -> None:
    """Say what there is of a preset's data, what is missing, and where to get it. Exit code 2 if it is incomplete."""
    from trainers.data.inventory import take_inventory

    config = CssExperiment.of(preset, parse_settings(settings or [])).base
    with open_console(as_json) as console:
        inventory = take_inventory(config.data, decode=decode)
        for line in lines(preset, inventory):
            console.say(line)
        console.result({"preset": preset, "complete": not inventory.missing, **inventory._asdict()})
    if inventory.missing:
        raise typer.Exit(INCOMPLETE)


def lines(preset: str, inventory: Inventory) -> Iterator[str]:
    """Yield a short table and, where something is missing, what and where to get it."""
    rows = {"preset": preset, "data": inventory.title, "root": inventory.root or "none: nothing to download"}
    rows |= {role: f"{count} images" for role, count in inventory.images.items()}
    rows["classes"] = str(inventory.classes)
    if inventory.sizes is not None:
        smallest, largest = (f"{height} x {width}" for height, width in inventory.sizes)
        rows["height x width"] = smallest if smallest == largest else f"{smallest} to {largest}"
    if inventory.digest is not None:
        rows["splits"] = inventory.digest
    rows["complete"] = "no" if inventory.missing else "yes"
    width = max(map(len, rows))
    yield from (f"{name:<{width}}  {value}" for name, value in rows.items())
    yield from (f"missing: {line}" for line in inventory.missing)
    if inventory.missing:
        yield f"get it from: {inventory.where}"
        yield f"layout below {inventory.root}:"
        yield from (f"    {line}" for line in inventory.layout)
