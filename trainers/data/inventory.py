"""Inventory of a data set: what is there and what is missing, without starting anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trainers.config import DigitsData, FileData, FolderData
from trainers.data.files import Coding, Pair, count_values, fitted, image_size
from trainers.data.folder import Content, content_of, require_classes
from trainers.data.source import ImageSource
from trainers.data.splits import check_files, open_reader, open_splits, open_test, open_val
from trainers.data.threads import in_threads
from trainers.errors import DataError


class Inventory(NamedTuple):
    """Parts, sizes and gaps of a data set."""

    title: str
    root: str | None
    """None for data that lie in no folder."""
    classes: int
    """K."""
    images: dict[str, int]
    """Images in labelled, unlabelled, dev and val; empty where something is missing or wrong."""
    sizes: tuple[tuple[int, int], tuple[int, int]] | None
    """Height and width of the smallest and of the largest image (in pixels) as they are stored; none if missing."""
    digest: str | None
    """Of the splits."""
    masks: dict[str, str]
    """How many of the training and of the validation images have masks; empty where none was looked for."""
    content: tuple[Content, ...]
    """What the training masks hold; empty where they were not read."""
    missing: tuple[str, ...]
    """A line for each thing that is missing or wrong; empty where the data set is complete."""
    where: str
    """Where to get it."""
    layout: tuple[str, ...]
    """What must lie below the root."""


def take_inventory(data: DigitsData | FileData, *, decode: bool = False) -> Inventory:
    """Look at a data set; what is wrong with it is in the result and not raised.

    Args:
        data: What to look at.
        decode: Whether to decode every image and mask, which takes minutes for the large ones; else heads of images are
            read, and masks: of a folder all training masks, else those that the splits are drawn by.
    """
    if isinstance(data, DigitsData):
        images, digest, _ = _parts(data)
        size = data.image_shape
        where = "nothing to get: scikit-learn brings the digits"
        title = "scenes of handwritten digits"
        return Inventory(title, None, len(data.classes), images, (size, size), digest, {}, (), (), where, ())
    reader = open_reader(data)
    incomplete = Inventory(
        reader.title, str(data.root), len(data.classes), {}, None, None, {}, (), (), reader.where, reader.layout
    )
    missing = reader.missing()
    if missing:
        return incomplete._replace(missing=tuple(missing))
    found = incomplete
    try:
        parts = {
            "training": reader.training().pairs,
            "validation": reader.validation() if reader.has_validation else (),
        }
        found = found._replace(masks={part: _masked(pairs) for part, pairs in parts.items()})
        pairs = [pair for part in parts.values() for pair in part]
        found = found._replace(sizes=_sizes(reader.coding, pairs))
        if isinstance(data, FolderData) or decode:
            pixels = count_values(reader.coding, parts["training"]).pixels
            found = found._replace(content=content_of(reader.coding, data.classes, pixels))
        if isinstance(data, FolderData):
            require_classes(data, found.content)
        images, digest, sources = _parts(data, reader.has_validation)
        if decode:
            check_files(sources)
    except DataError as error:
        return found._replace(missing=(str(error),))
    return found._replace(images=images, digest=digest)


def _masked(pairs: Sequence[Pair]) -> str:
    return f"{sum(pair.has_mask for pair in pairs)} of {len(pairs)} images" if pairs else "none"


def _parts(data: DigitsData | FileData, val: bool = True) -> tuple[dict[str, int], str, list[ImageSource]]:
    splits = open_splits(data)
    sources = {**splits._asdict(), **({"val": open_val(data)} if val else {})}
    if getattr(data, "test", None) is not None:
        sources["test"] = open_test(data)
    return {role: len(source) for role, source in sources.items()}, splits.digest, list(sources.values())


def _sizes(coding: Coding, pairs: list[Pair]) -> tuple[tuple[int, int], tuple[int, int]]:
    sizes: list[tuple[int, int]] = [(0, 0)] * len(pairs)

    def read(index: int) -> None:
        path = pairs[index].image
        sizes[index] = image_size(path, oriented=coding.oriented)
        fitted(coding, path, sizes[index])

    in_threads(read, range(len(pairs)))
    return min(sizes, key=_area), max(sizes, key=_area)


def _area(size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    return size[0] * size[1], size
