"""`s4 data`: a preset's data and what is missing, what channels tell of classes; masks and weak maps that are made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.help import WHAT, Command, Group
from harness.cli.options import Json, Preset, Settings
from harness.console import counting, open_console
from harness.experiment import CssExperiment
from harness.formats import counted
from harness.tables import Column, Table, table_csv
from trainers.config import DigitsData, FileData, FolderData
from trainers.config.data import NO_LABEL
from trainers.overrides import parse_settings

if TYPE_CHECKING:
    from trainers.data.channels import Channels
    from trainers.data.folder import Content
    from trainers.data.inventory import Inventory

INCOMPLETE = 2
"""Exit code where something is missing."""

data = typer.Typer(cls=Group, no_args_is_help=True)


@data.callback()
def group() -> None:
    """Look at the data of a preset, and make masks of annotations or weak maps of disparity.

    Examples:
        s4 data check digits_css
        s4 data channels digits_css
    """


@data.command(cls=Command)
def check(
    preset: Preset = "digits_css",
    settings: Settings = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image and mask; takes minutes.", rich_help_panel=WHAT)
    ] = False,
    overlays: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write 4 labelled images with their classes in colour there.", rich_help_panel=WHAT
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what there is of a preset's data, what is missing, and where to get it. Exit code 2 if it is incomplete.

    Examples:
        s4 data check voc_css_92
        s4 data check mine.yaml --decode --overlays seen
    """
    from trainers.data.inventory import take_inventory
    from trainers.overlays import check_overlays, write_overlays

    data = CssExperiment.of(preset, parse_settings(settings or [])).base.data
    if overlays is not None:
        check_overlays(data, overlays)
    with open_console(as_json) as console:
        inventory = take_inventory(data, decode=decode)
        for line in lines(preset, inventory, data):
            console.say(line)
        drawn = [] if overlays is None else write_overlays(data, overlays)
        for path in drawn:
            console.say(f"overlay: {path}")
        content = [part._asdict() for part in inventory.content]
        console.result({
            "preset": preset, "complete": not inventory.missing, **inventory._asdict(), "content": content,
            "overlays": [str(path) for path in drawn],
        })  # fmt: skip
    if inventory.missing:
        raise typer.Exit(INCOMPLETE)


@data.command(cls=Command)
def channels(
    preset: Preset = "digits_css",
    settings: Settings = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the table there, too.", rich_help_panel=WHAT)
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank the channels of model.input by what each says of a pixel's class, on labelled pixels, before any training.

    Examples:
        s4 data channels digits_css
        s4 data channels mine.yaml --csv channels.csv
    """
    from trainers.colour import ADDED
    from trainers.data.channels import measure_channels
    from trainers.data.splits import open_splits
    from trainers.errors import UsageError

    if csv is not None and csv.exists():
        raise UsageError(f"--csv must be a new file, {csv} exists: choose another")
    data = CssExperiment.of(preset, parse_settings(settings or [])).base.data
    with open_console(as_json) as console:
        source = open_splits(data).labelled
        with counting(console, "labelled images", len(source)) as done:
            measured = measure_channels(source, len(data.classes), done)
        table = channels_table(measured)
        console.table(table)
        console.say(f"choose with --set model.input.space=NAME, --set model.input.add={','.join(ADDED)}")
        if csv is not None:
            csv.write_text(table_csv(table), encoding="utf-8")
            console.say(f"table: {csv}")
        console.result({
            "preset": preset, **measured._asdict(), "channels": [each._asdict() for each in measured.channels],
            "csv": None if csv is None else str(csv),
        })  # fmt: skip


@data.command(cls=Command)
def convert(
    annotations: Annotated[Path, typer.Argument(metavar="JSON", help="COCO annotations of instances.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="A new one, of the masks, for example data/train/masks.", rich_help_panel=WHAT
        ),
    ],
    as_json: Json = False,
) -> None:
    """Write a mask NAME.png of class indices for each annotated image of a COCO file, and say what data.classes are.

    Examples:
        s4 data convert instances.json --out data/train/masks
    """
    from trainers.data.coco_json import read_coco
    from trainers.errors import UsageError
    from trainers.predict import mask_image, write_png

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out must be a new or an empty folder, got {out}: choose another")
    with open_console(as_json) as console:
        classes, draw, count, without = read_coco(annotations)
        for name, label in draw():
            write_png(out / f"{name}.png", mask_image(label, len(classes)))
        setting = f"data.classes={json.dumps(classes, ensure_ascii=False)}"
        more = counted(without, "image")
        console.say(f"{counted(count, 'mask')} in {out}; {more} without annotations count as not labelled")
        console.say(f"set {setting}")
        console.result({"folder": str(out), "masks": count, "without": without, "classes": classes})


@data.command(cls=Command)
def weak(
    preset: Preset = "cityscapes_css_186",
    settings: Settings = None,
    tolerance: Annotated[
        float,
        typer.Option(metavar="PIXELS", help="Disparity that the ground may be off its line.", rich_help_panel=WHAT),
    ] = 1.0,
    height: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Height of an obstacle, as a share of the camera's height.", rich_help_panel=WHAT
        ),
    ] = 0.25,
    force: Annotated[
        bool, typer.Option("--force", help="Make maps anew that are there.", rich_help_panel=WHAT)
    ] = False,
    as_json: Json = False,
) -> None:
    """Write weak maps of Cityscapes' training images, ground and obstacles by disparity, and say how right they are.

    Maps that are there are kept, so that a command that was interrupted goes on when it is given again. They are read
    with loss.lambda_w above 0, or css.veto=true.

    Examples:
        s4 data weak cityscapes_css_186
        s4 data weak cityscapes_css_186 --tolerance 1.5 --height 0.3 --force
    """
    from contextlib import ExitStack

    from trainers.data.disparity import GroundRule, compare_weak_maps, make_weak_maps

    data = CssExperiment.of(preset, parse_settings(settings or [])).base.data
    with open_console(as_json) as console, ExitStack() as bar:
        made = make_weak_maps(
            data, GroundRule(tolerance, height), force,
            lambda total: bar.enter_context(counting(console, "weak maps", total)),
        )  # fmt: skip
        bar.close()
        console.say(
            f"{counted(made.written, 'map')} written below {made.folder}, {made.kept} were there; "
            f"{made.without_ground} say nothing, for no ground was found"
        )
        assert not isinstance(data, DigitsData)  # noqa: S101 - make_weak_maps has refused them
        groups = compare_weak_maps(data)
        width = max(len(group.name) for group in groups)
        console.say(f"{'group':<{width}}   pixels  right where images are labelled")
        for group in groups:
            right = "" if group.accuracy is None else f"{group.accuracy:6.1%}"
            console.say(f"{group.name:<{width}}   {group.share:6.1%}  {right}".rstrip())
        console.result({**made._asdict(), "folder": str(made.folder), "groups": [group._asdict() for group in groups]})


def lines(preset: str, inventory: Inventory, data: DigitsData | FileData) -> Iterator[str]:
    """Yield a short table, what masks hold and, where something is missing, what and where to get it."""
    rows = {"preset": preset, "data": inventory.title, "root": inventory.root or "none: nothing to download"}
    rows |= {role: counted(count, "image") for role, count in inventory.images.items()}
    rows |= {f"{part} masks": count for part, count in inventory.masks.items()}
    rows["classes"] = str(inventory.classes)
    if inventory.sizes is not None:
        smallest, largest = (f"{height} x {width}" for height, width in inventory.sizes)
        rows["height x width"] = smallest if smallest == largest else f"{smallest} to {largest}"
        if isinstance(data, FolderData):
            fit = f" ({data.fit})" if data.fit != "exact" else ""
            rows["height x width"] += f", read as {data.height} x {data.width}{fit}"
    if inventory.digest is not None:
        rows["splits"] = inventory.digest
    rows["complete"] = "no" if inventory.missing else "yes"
    width = max(map(len, rows))
    yield from (f"{name:<{width}}  {value}" for name, value in rows.items())
    if inventory.content:
        yield from _table(inventory.content, data)
    yield from (f"missing: {line}" for line in inventory.missing)
    if inventory.missing and not inventory.masks:
        yield f"get it from: {inventory.where}"
        yield f"layout below {inventory.root}:"
        yield from (f"    {line}" for line in inventory.layout)


def channels_table(measured: Channels) -> Table:
    """Return a row for each channel, the most telling first."""
    columns = [
        Column("channel"),
        Column("comes with model.input", "setting"),
        Column("Fisher ratio", "fisher", ".4f"),
        Column("mutual information (bits)", "information", ".4f"),
        Column("of the classes' entropy", "share", ".1%"),
    ]
    rows = [
        (each.channel, ", ".join(each.settings), each.fisher, each.information,
         each.information / measured.entropy if measured.entropy > 0 else None)
        for each in measured.channels
    ]  # fmt: skip
    caption = (
        f"{counted(measured.pixels, 'labelled pixel')} of {counted(measured.images, 'image')}; the classes' entropy is "
        f"{measured.entropy:.3f} bits"
    )
    return Table("channels", caption, columns, rows)


def _table(content: Sequence[Content], data: DigitsData | FileData) -> Iterator[str]:
    """Yield a line for each class: its values or colour, and its share of the pixels of all training masks."""
    from trainers.data.folder import IGNORED, SHOWN, UNKNOWN

    palette = data.palette if isinstance(data, FolderData) else None
    colours = {IGNORED if name == NO_LABEL else name: str(list(colour)) for name, colour in palette or ()}
    notes = {IGNORED: "no loss, no score", UNKNOWN: "mean nothing: refused"}
    width = max(len("class"), *(len(part.name) for part in content))
    yield f"{'class':<{width}}  pixels  values in training masks"
    for part in content:
        values = colours.get(part.name) or ", ".join(map(str, part.values[:SHOWN]))
        values = values if part.values else "in no training mask"
        more = f" and {len(part.values) - SHOWN} more" if len(part.values) > SHOWN else ""
        note = f" ({notes[part.name]})" if part.name in notes else ""
        yield f"{part.name:<{width}}  {part.share:6.1%}  {values}{more}{note}"
