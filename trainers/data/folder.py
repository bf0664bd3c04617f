"""Images and masks from a user's folder: ROOT/{train,val}/{images,masks}/NAME.*."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from trainers.config import IGNORE, FolderData
from trainers.config.data import NO_LABEL, STEM
from trainers.data.files import VALUES, Coding, Pair, require_masks
from trainers.data.masks import ColourMasks, IndexMasks
from trainers.data.reader import Training
from trainers.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
"""Files in `images` that are images, in any case; others are passed over."""
NAMED = 3
"""Files or classes that a refusal names, at most."""
SHOWN = 12
"""Mask values that a refusal names, at most."""


class FolderReader:
    """Implements `trainers.data.reader.Reader`."""

    title = "a folder of images and masks"
    where = "your own images; masks, for those that you have labelled, hold class indices or colours (data.palette)"
    layout: tuple[str, ...] = (
        "train/images/NAME.{jpg,png,tif,webp}",
        "train/masks/NAME.png, or as data.mask_pattern says; images without a mask are used as unlabelled ones",
        "val/{images,masks} likewise, each image with a mask; only a final evaluation reads them",
    )

    def __init__(self, data: FolderData) -> None:
        self._data = data

    @cached_property
    def coding(self) -> Coding:
        """What masks mean, by colours, `values`, or values 0 to K - 1; all is resized to one size."""
        data = self._data
        table = label_table(data)
        allowed = np.zeros(VALUES, dtype=bool)
        allowed[[*table]] = True
        labels = np.full(VALUES, IGNORE, dtype=np.uint8)
        labels[[*table]] = list(table.values())
        if data.palette is not None:
            number = _label_of(data)
            colours = ColourMasks({colour: number[name] for name, colour in data.palette})
            return Coding(colours, labels, allowed, "{values} {path}", data.image_shape, data.fit, oriented=True)
        known = f"classes (0 to {len(data.classes) - 1})" if data.values is None else "in data.values"
        rule = (
            f"{known} or in data.ignore_values {list(data.ignore_values)}, got {{values}} in {{path}}: correct the "
            "mask, or add to data.classes or data.ignore_values, or say what values mean with data.values="
            "{{VALUE: CLASS, ...}} (s4 data check shows all of them)"
        )
        return Coding(IndexMasks(), labels, allowed, rule, data.image_shape, data.fit, oriented=True)

    def missing(self) -> list[str]:
        """Return why a part cannot be read, and which validation images lack their mask."""
        lines = []
        for part in (self._data.train, self._data.val):
            if part == self._data.val and not self.has_validation:
                continue
            try:
                pairs = list_pairs(self._data, part)
            except DataError as error:
                lines.append(str(error))
                continue
            unmasked = [pair for pair in pairs if not pair.has_mask]
            if unmasked and part == self._data.val:
                lines.append(f"{len(unmasked)} of {len(pairs)} validation masks, the first {unmasked[0].mask}")
        return lines

    def training(self) -> Training:
        """Return the pairs of the training folder that `train_from` matches; labelled are those of `labelled_from`.

        Raises:
            DataError: one matches none, or a folder cannot be read.
        """
        pairs = _matching(list_pairs(self._data, self._data.train), "train_from", self._data.train_from)
        matched = frozenset(pair.name for pair in _matching(pairs, "labelled_from", self._data.labelled_from))
        return Training(pairs, labelled_from=None if len(matched) == len(pairs) else matched)

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation folder, which nothing needs but a final evaluation."""
        return (self._data.root / self._data.val).exists()

    def validation(self) -> tuple[Pair, ...]:
        """Return the pairs of the validation folder that `val_from` matches."""
        pairs = _matching(list_pairs(self._data, self._data.val), "val_from", self._data.val_from)
        require_masks(pairs, "validation")
        return pairs

    def key(self, entry: str) -> str:
        """Return a file's name without its extension."""
        return entry.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _matching(pairs: tuple[Pair, ...], field: str, pattern: str) -> tuple[Pair, ...]:
    matching = tuple(pair for pair in pairs if fnmatchcase(pair.name, pattern))
    if not matching:
        raise DataError(
            f"data.{field} must match names of images, {pattern!r} matches none of {len(pairs)}, the first "
            f"{pairs[0].name}: correct the pattern"
        )
    return matching


def label_table(data: FolderData) -> dict[int, int]:
    """Return the label of each value that masks may hold, 255 where it means no label; of colours, their labels."""
    k = len(data.classes)
    if data.palette is not None:
        return {label: label for label in (*range(k), IGNORE)}
    ignored = {value: IGNORE for value in data.ignore_values if 0 <= value < VALUES}
    if data.values is None:
        return ignored | {value: value for value in range(k)}
    label = _label_of(data)
    return ignored | {value: label[name] for value, name in data.values}


def _label_of(data: FolderData) -> dict[str, int]:
    return {NO_LABEL: IGNORE} | {name: label for label, name in enumerate(data.classes)}


class Content(NamedTuple):
    """What masks hold of a class, of no label or of a value that means nothing."""

    name: str
    """Of the class, or `ignored` or `unknown`."""
    values: tuple[int, ...]
    """Mask values that mean it; labels, where masks are read by their colours."""
    pixels: int
    share: float
    """Of all pixels of the masks."""


IGNORED, UNKNOWN = "(ignored)", "(unknown)"
"""In `Content`, beside the names of classes."""


def content_of(coding: Coding, classes: Sequence[str], pixels: NDArray[np.int64]) -> tuple[Content, ...]:
    """Return what masks hold: every class, in the order of the labels, then what is ignored and what means nothing.

    Args:
        coding: Says what values mean.
        classes: Names of the K classes.
        pixels: Of each value, int64 [65536].
    """
    total = max(1, int(pixels.sum()))
    values: dict[str, list[int]] = {name: [] for name in (*classes, IGNORED, UNKNOWN)}
    for value in np.flatnonzero(pixels).tolist():
        label = int(coding.labels[value]) if value < len(coding.labels) and coding.allowed[value] else None
        values[UNKNOWN if label is None else IGNORED if label == IGNORE else classes[label]].append(value)
    counts = {name: int(pixels[found].sum()) for name, found in values.items()}
    return tuple(
        Content(name, tuple(found), counts[name], counts[name] / total)
        for name, found in values.items()
        if found or name not in (IGNORED, UNKNOWN)
    )


def require_classes(data: FolderData, content: Sequence[Content]) -> None:
    """Refuse values in training masks that mean nothing, and classes that no training mask holds.

    Raises:
        DataError: names the classes and the values that were found.
    """
    absent = [part.name for part in content if not part.values and part.name in data.classes]
    unknown = any(part.name == UNKNOWN for part in content)
    if not unknown and (not absent or data.allow_missing):
        return
    meant = sorted((value, part.name) for part in content for value in part.values)
    found = f"found {', '.join(f'{value} {name}' for value, name in meant[:SHOWN])}" + (
        f" and {len(meant) - SHOWN} more" if len(meant) > SHOWN else ""
    )
    way = f"set {propose_values(data, [value for value, _ in meant])}"
    if data.palette is not None:
        found = f"found {', '.join(part.name for part in content if part.values)}"
        way = "correct data.palette"
    if unknown:
        raise DataError(f"values of training masks must mean something, got (unknown) ones, {found}: {way}")
    raise DataError(
        f"every class must be held by a training mask, got none with {', '.join(absent[:NAMED])}, {found}: {way}, or, "
        "if that is right, data.allow_missing=true"
    )


def propose_values(data: FolderData, found: Sequence[int]) -> str:
    """Return a setting of `data.values` for the values found: in the order of the classes, where the numbers agree."""
    kept = [value for value in found if value not in data.ignore_values]
    values = next((values for values in (found, kept) if len(values) == len(data.classes)), None)
    if values is None:
        return "data.values={VALUE: CLASS, ...}"
    named = dict(zip(values, data.classes, strict=True))
    return f"data.values={yaml.safe_dump(named, default_flow_style=True, sort_keys=False, width=math.inf).strip()}"


def list_pairs(data: FolderData, part: str) -> tuple[Pair, ...]:
    """Return the pairs of the folder `part` below the root, sorted by name; masks are looked up, nothing is read.

    Raises:
        DataError: a folder is missing, it holds no images, two images share a name, or a mask belongs to no image.
    """
    if not data.root.is_dir():
        raise DataError(f"data.root must be a folder, got {data.root}: correct the path")
    images = data.root / part / "images"
    if not images.is_dir():
        raise DataError(f"{images} must be a folder of images, got no such folder: create it or correct the path")
    files = image_files(images)
    masks = data.root / part / "masks"
    masked = {path.name for path in masks.iterdir()} if masks.is_dir() else set()
    pairs: dict[str, Pair] = {}
    for path in files:
        if path.stem in pairs:
            first = pairs[path.stem].image.name
            raise DataError(f"names of images must be unique, got {first} and {path.name} in {images}: rename one")
        mask = data.mask_pattern.replace(STEM, path.stem)
        pairs[path.stem] = Pair(path.stem, path, masks / mask, mask in masked)
    _require_no_orphans(data, masks, masked - {pair.mask.name for pair in pairs.values()}, pairs.keys())
    return tuple(pairs[name] for name in sorted(pairs))


def image_files(images: Path) -> list[Path]:
    """Return the image files of a folder, sorted.

    Raises:
        DataError: there are none.
    """
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(
            f"{images} must hold images ({', '.join(IMAGE_SUFFIXES)}), got none: add them or correct data.root"
        )
    return files


def _require_no_orphans(data: FolderData, masks: Path, others: Set[str], names: Iterable[str]) -> None:
    orphans = sorted(name for name in others if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))
    if not orphans:
        return
    longest = max((name for name in names if name in orphans[0]), key=len, default=None)
    proposed = orphans[0].replace(longest, STEM, 1) if longest else f"{STEM}_mask.png"
    raise DataError(
        f"every mask must be named after its image as data.mask_pattern says ({data.mask_pattern}), got "
        f"{len(orphans)} in {masks} that belong to no image, such as {', '.join(orphans[:NAMED])}: rename or remove "
        f'them, or set for example data.mask_pattern="{proposed}"'
    )
