"""`s4 init`: a config file for a folder of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.help import WHAT
from harness.cli.options import Json
from harness.console import open_console, program


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds train/images and train/masks; val, too.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="To write; default: the folder's name with .yaml, here.", rich_help_panel=WHAT
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            rich_help_panel=WHAT,
            help="Names of the classes, with commas, in the order of the values or colours that masks hold; ignore: no "
            "label.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.", rich_help_panel=WHAT)] = False,
    as_json: Json = False,
) -> None:
    """Look at a folder of images and masks, and write a config file that every command takes in place of a preset.

    Masks may hold indices, grey values, colours or palettes, and be named after their images with something added.

    Examples:
        s4 init photos
        s4 init photos --classes sky,building,road --out mine.yaml
    """
    from harness.config_file import named_config
    from harness.folder_config import check_file, found_lines, next_lines, write_folder_config
    from trainers.data.survey import survey_folder

    file = Path(f"{folder.resolve().name}.yaml") if out is None else out
    check_file(file, force)
    with open_console(as_json) as console:
        survey = survey_folder(folder, [name.strip() for name in classes.split(",")] if classes else ())
        write_folder_config(file, survey, program())
        for line in found_lines(survey):
            console.say(line)
        console.say(f"written: {file}; next:")
        for line in next_lines(file, program()):
            console.say(f"    {line}")
        preset, settings = named_config(str(file))
        counts = {"images": survey.images, "masks": survey.masked, "val": survey.val, "read": survey.read}
        found = [part._asdict() for part in survey.found]
        console.result({"file": str(file), "preset": preset, "settings": settings, **counts, "found": found})
