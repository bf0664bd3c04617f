"""Pictures of labelled images as they are read, with their classes in colour: mistakes in masks show at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainers.config import IGNORE, DigitsData, FileData
from trainers.data.files import FileSource
from trainers.data.source import ImageSource
from trainers.data.splits import open_reader, open_splits
from trainers.errors import DataError, UsageError
from trainers.figure import GAP, INK, PAPER, Pixels, overlay, palette
from trainers.predict import write_png

COUNT, SIDE, LINE = 4, 480, 18
"""Pictures; width of an image in them, at least, in pixels; height of a line of the legend."""


def check_overlays(data: DigitsData | FileData, folder: Path) -> None:
    """Make sure that no picture replaces an image or a file.

    Raises:
        UsageError: the folder is a file, or lies within that of the data.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--overlays must be a folder, got the file {folder}: choose another")
    if not isinstance(data, DigitsData) and folder.resolve().is_relative_to(data.root.resolve()):
        raise UsageError(f"--overlays must lie outside of data.root={data.root}, got {folder}: choose another")


def write_overlays(data: DigitsData | FileData, folder: Path, count: int = COUNT) -> list[Path]:
    """Write FOLDER/NAME.png for up to `count` training images with masks, evenly spaced; return the paths.

    An image as it is read, beside it with the colours of its classes, below their legend with shares of its pixels.
    Values that mean nothing are left without a colour. Nothing is written where images or masks cannot be read at all.
    """
    try:
        source = _labelled(data, count)
        samples = source.fetch(range(len(source)))
    except DataError:  # which the inventory says
        return []
    written = []
    for name, image, label, (height, width) in zip(source.names, *samples[:2], samples.sizes.tolist(), strict=True):
        pixels, classes = image[:, :height, :width].permute(1, 2, 0).numpy(), label[:height, :width].numpy()
        written.append(folder / f"{name}.png")
        write_png(written[-1], _picture(pixels, classes, data.classes))
    return written


def _labelled(data: DigitsData | FileData, count: int) -> ImageSource:
    if isinstance(data, DigitsData):
        data = data.model_copy(update={"labelled": min(count, data.labelled)})
        return open_splits(data).labelled
    reader = open_reader(data)
    pairs = [pair for pair in reader.training().pairs if pair.has_mask]
    chosen = sorted({round(at) for at in np.linspace(0, len(pairs) - 1, count)}) if pairs else []
    coding = reader.coding
    return FileSource(coding._replace(allowed=np.ones_like(coding.allowed)), [pairs[at] for at in chosen])


def _picture(image: Pixels, label: Pixels, classes: Sequence[str]) -> Image.Image:
    scale = -(-SIDE // image.shape[1])
    tiles = [Image.fromarray(pixels) for pixels in (image, overlay(image, label, len(classes)))]
    width, height = tiles[0].width * scale, tiles[0].height * scale
    shares = np.bincount(label.ravel(), minlength=IGNORE + 1) / label.size
    shown = np.flatnonzero(shares).tolist()
    canvas = Image.new("RGB", (3 * GAP + 2 * width, 3 * GAP + height + LINE * -(-len(shown) // 4)), PAPER)
    for at, tile in enumerate(tiles):
        canvas.paste(tile.resize((width, height), Image.Resampling.NEAREST), (GAP + at * (width + GAP), GAP))
    draw, font, colours = ImageDraw.Draw(canvas), ImageFont.load_default(size=13), palette(len(classes))
    for at, index in enumerate(shown):
        left, top = GAP + at % 4 * (canvas.width // 4), 2 * GAP + height + LINE * (at // 4)
        draw.rectangle((left, top + 2, left + 12, top + 14), fill=tuple(colours[index].tolist()), outline=INK)
        name = "ignored" if index == IGNORE else classes[index]
        draw.text((left + 18, top), f"{name} {shares[index]:.1%}", fill=INK, font=font)
    return canvas
