"""`s4 data check`: what there is of a preset's data, what is missing, and where to get it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, Preset, Settings, base_config
from harness.console import Console, open_console
from harness.tables import Column, Table

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
    from trainers.overrides import parse_settings

    config = base_config(preset, parse_settings(settings or []))
    with open_console(as_json) as console:
        found = take_inventory(config.data, decode=decode)
        show(console, preset, found)
        console.result({"preset": preset, "complete": not found.missing, **found._asdict()})
    if found.missing:
        raise typer.Exit(INCOMPLETE)


def show(console: Console, preset: str, found: Inventory) -> None:
    """Write a short table and, where something is missing, what and where to get it."""
    console.table(Table("data", "", [Column(""), Column("")], [*rows(preset, found).items()]))
    for line in found.missing:
        console.say(f"missing: {line}")
    if found.missing:
        console.say(f"get it from: {found.where}")
        console.say(f"layout below {found.root}:")
        for line in found.layout:
            console.say(f"    {line}")


def rows(preset: str, found: Inventory) -> dict[str, str]:
    """Return the lines of the table, name by value."""
    lines = {"preset": preset, "data": found.title, "root": found.root or "none: nothing to download"}
    lines |= {role: f"{count} images" for role, count in found.images.items()}
    lines |= {"classes": str(found.classes)}
    if found.sizes is not None:
        (low_h, low_w), (high_h, high_w) = found.sizes
        same = found.sizes[0] == found.sizes[1]
        lines["height x width"] = f"{high_h} x {high_w}" if same else f"{low_h} x {low_w} to {high_h} x {high_w}"
    if found.digest is not None:
        lines["splits"] = found.digest
    return lines | {"complete": "no" if found.missing else "yes"}
