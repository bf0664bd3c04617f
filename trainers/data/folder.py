"""Images and masks from a user's folder: ROOT/{train,val}/{images,masks}/NAME.*."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from trainers.config import IGNORE, FolderData
from trainers.data.files import Coding, Pair, byte_mask, require_masks
from trainers.data.reader import Training
from trainers.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Files in `images` that are images, in any case; others are passed over."""


class FolderReader:
    """Implements `trainers.data.reader.Reader`."""

    title = "a folder of images and masks"
    where = "your own images; each mask holds class indices, one byte a pixel, and the name of its image"
    layout: tuple[str, ...] = ("{train,val}/images/NAME.{jpg,png}", "{train,val}/masks/NAME.png")

    def __init__(self, data: FolderData) -> None:
        self._data = data

    @property
    def coding(self) -> Coding:
        """Values 0 to K - 1 are classes, `ignore_values` are not, others are refused; all is resized to one size."""
        data = self._data
        k = len(data.classes)
        labels = np.full(256, IGNORE, dtype=np.uint8)
        labels[:k] = np.arange(k)
        allowed = np.zeros(256, dtype=bool)
        allowed[[*range(k), *(value for value in data.ignore_values if 0 <= value < 256)]] = True
        rule = (
            f"classes (0 to {k - 1}) or in data.ignore_values {list(data.ignore_values)}, got {{values}} in {{path}}: "
            "correct the mask, or add to data.classes or data.ignore_values"
        )
        return Coding(byte_mask, labels, allowed, rule, data.image_shape)

    def missing(self) -> list[str]:
        """Return why a part cannot be read, and which validation images lack their mask."""
        lines = []
        for part in (self._data.train, self._data.val):
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


def list_pairs(data: FolderData, part: str) -> tuple[Pair, ...]:
    """Return the pairs of the folder `part` below the root, sorted by name; masks are looked up, nothing is read.

    Raises:
        DataError: a folder is missing, it holds no images, or two images share a name.
    """
    if not data.root.is_dir():
        raise DataError(f"data.root must be a folder, got {data.root}: correct the path")
    images = data.root / part / "images"
    if not images.is_dir():
        raise DataError(f"{images} must be a folder of images, got no such folder: create it or correct the path")
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(
            f"{images} must hold images ({', '.join(IMAGE_SUFFIXES)}), got none: add them or correct data.root"
        )
    masks = data.root / part / "masks"
    masked = {path.stem for path in masks.glob("*.png")}
    pairs: dict[str, Pair] = {}
    for path in files:
        if path.stem in pairs:
            first = pairs[path.stem].image.name
            raise DataError(f"names of images must be unique, got {first} and {path.name} in {images}: rename one")
        pairs[path.stem] = Pair(path.stem, path, masks / f"{path.stem}.png", path.stem in masked)
    return tuple(pairs[name] for name in sorted(pairs))
