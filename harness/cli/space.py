"""`s4 space`: writes a file of a search space, and shows one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.help import WHAT, Command, Group
from harness.cli.options import Json, Settings
from harness.console import open_console
from harness.experiment import CssExperiment
from harness.formats import counted
from trainers.errors import UsageError
from trainers.overrides import parse_settings

space = typer.Typer(cls=Group, no_args_is_help=True)


@space.callback()
def group() -> None:
    """Write a search space, and look at one.

    Examples:
        s4 space new lr width --preset digits_css --out mine.yaml
        s4 space show css_quick
    """


@space.command(cls=Command)
def new(
    parameters: Annotated[list[str], typer.Argument(metavar="PATH...", help="What is searched: lr, optimizer.lr.")],
    preset: Annotated[
        str, typer.Option(metavar="PRESET", help="The values to search around.", rich_help_panel=WHAT)
    ] = "digits_css",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A new file; default: the terminal.", rich_help_panel=WHAT)
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Write a space around a preset's values, to be edited: its ranges are guesses that the config takes.

    Examples:
        s4 space new lr model.width --preset digits_css --out mine.yaml
        s4 space new lambda_u delta_u
    """
    from harness.space_file import draft_space

    if out is not None and out.exists():
        raise UsageError(f"--out must be a new file, {out} exists: choose another")
    text = draft_space(parameters, CssExperiment.of(preset, parse_settings(settings or [])))
    with open_console(as_json) as console:
        if out is None:
            console.say(text.rstrip("\n"))
        else:
            out.write_text(text, encoding="utf-8")
            console.say(
                f"{out}: {counted(len(text.splitlines()) // 2, 'parameter')}; next: s4 tune {preset} --space {out}"
            )
        console.result({"space": text, "out": None if out is None else str(out)})


@space.command(cls=Command)
def show(
    name: Annotated[str, typer.Argument(metavar="SPACE", help="css, css_quick, encoder, or a YAML file.")],
    preset: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help="Take what a file leaves open from it.", rich_help_panel=WHAT),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Show what a space searches: ranges, conditions, and the values that a search starts from.

    Examples:
        s4 space show css
        s4 space show mine.yaml --preset digits_css
    """
    from harness.space_file import range_text, space_table
    from harness.tuning.config import fit_space
    from search_spaces import load_space

    found = load_space(name)
    if preset is not None:
        found = fit_space(found, CssExperiment.of(preset, parse_settings(settings or [])))
    with open_console(as_json) as console:
        console.table(space_table(found))
        if found.fixed:
            console.say("fixed: " + ", ".join(f"{path} = {value}" for path, value in found.fixed.items()))
        if found.source:
            console.say(f"source: {found.source}")
        if found.needs:
            console.say("baseline: the preset's values; --preset NAME shows them")
        console.result({
            "name": found.name, "source": found.source, "fixed": dict(found.fixed), "baseline": dict(found.published),
            "ours": dict(found.ours), "parameters": {item.path: range_text(item, found) for item in found.parameters},
        })  # fmt: skip
