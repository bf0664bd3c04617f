"""Weak maps of training images: for each pixel the group of classes that it is of, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainers.config import IGNORE, CityscapesData, DigitsData, FileData, FolderData
from trainers.data.files import Coding, FileSource, Pair, byte_mask, classes_in
from trainers.data.source import ImageSource, Samples
from trainers.data.splits import open_reader, open_splits
from trainers.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache(maxsize=4)  # trials of one process share their data
def open_weak(data: DigitsData | FileData) -> ImageSource:
    """Return the unlabelled images, in the order of the splits, with their weak maps in place of labels.

    Those of the digits come from the scenes' truth.

    Raises:
        DataError: the splits cannot be made, or an image has no map.
    """
    unlabelled = open_splits(data).unlabelled
    if isinstance(data, DigitsData):
        return _GroupSource(unlabelled, data.class_groups)
    return weak_source(data, unlabelled.names)


def weak_source(data: FileData, names: Iterable[str]) -> FileSource:
    """Return some training images with their weak maps in place of labels.

    Raises:
        DataError: an image has no map.
    """
    return FileSource(weak_coding(data), _weak_pairs(data, names))


def _weak_pairs(data: FileData, names: Iterable[str]) -> list[Pair]:
    training = {pair.name: pair for pair in open_reader(data).training().pairs}
    pairs = [training[name]._replace(mask=weak_path(data, training[name]), has_mask=True) for name in names]
    missing = [pair for pair in pairs if not pair.mask.is_file()]
    if missing:
        raise DataError(
            f"every unlabelled image must have a weak map, got {len(missing)} of {len(pairs)} without, the first "
            f"{missing[0].mask}: add them (255 where nothing is known; s4 data weak makes those of Cityscapes), or set "
            "loss.lambda_w=0 and css.veto=false"
        )
    return pairs


def verify_weak(data: DigitsData | FileData) -> None:
    """Make sure that every unlabelled image has a weak map; those of a folder are decoded.

    Raises:
        DataError: names the first that lacks, cannot be read, is of another size than its image or holds a value
            that is no group.
    """
    if isinstance(data, DigitsData):
        return
    pairs = _weak_pairs(data, open_splits(data).unlabelled.names)
    if isinstance(data, FolderData):
        classes_in(weak_coding(data), pairs)


def weak_path(data: FileData, pair: Pair) -> Path:
    """Return where the weak map of a training image lies, or would lie.

    Of a folder that is ROOT/train/weak/NAME.png; of Cityscapes ROOT/weak/train/CITY/NAME_weak.png.

    Raises:
        DataError: other data have none.
    """
    if isinstance(data, FolderData):
        return data.root / data.train / "weak" / f"{pair.name}.png"
    if isinstance(data, CityscapesData):
        return data.root / "weak" / "train" / pair.image.parent.name / f"{pair.name}_weak.png"
    raise DataError(f"weak maps must be of data of a folder or of cityscapes, got {data.name}: choose another preset")


def weak_coding(data: FileData) -> Coding:
    """Return what weak maps mean: the values of the groups, and 255; images are read as for any other purpose."""
    groups, labels = len(getattr(data, "weak_groups", None) or ()), np.arange(IGNORE + 1, dtype=np.uint8)
    rule = (
        f"groups of data.weak_groups (0 to {groups - 1}) or 255 in weak maps, got {{values}} in {{path}}: correct the "
        "map, or data.weak_groups"
    )
    allowed = (labels < groups) | (labels == IGNORE)
    return open_reader(data).coding._replace(read=byte_mask, labels=labels, allowed=allowed, rule=rule)


class _GroupSource:
    """Images whose labels are replaced by the values of their groups."""

    def __init__(self, source: ImageSource, class_groups: Sequence[int]) -> None:
        self._source, self._groups = source, (*class_groups, *[IGNORE] * (IGNORE + 1 - len(class_groups)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images."""
        return self._source.names

    def __len__(self) -> int:
        return len(self._source)

    def fetch(self, indices: Sequence[int]) -> Samples:
        """Return the samples of `indices`."""
        import torch

        samples = self._source.fetch(indices)
        groups: Tensor = torch.tensor(self._groups, dtype=torch.uint8)
        return samples._replace(labels=groups[samples.labels.long()])
