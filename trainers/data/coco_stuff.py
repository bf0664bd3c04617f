"""COCO-Stuff 10K, version 1.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.config import IGNORE, CocoStuffData
from trainers.config.class_names import COCO_STUFF_IDS
from trainers.data.files import Coding, Pair
from trainers.data.reader import PublishedReader, matlab_mask, published_coding, read_names


class CocoStuffReader(PublishedReader):
    """9000 training images, and 1000 test images that the field scores on."""

    title = "COCO-Stuff 10K v1.1"
    where = "https://github.com/nightrome/cocostuff10k (cocostuff-10k-v1.1.zip)"
    layout: tuple[str, ...] = ("images/*.jpg", "annotations/*.mat", "imageLists/{train,test}.txt")

    def __init__(self, data: CocoStuffData) -> None:
        super().__init__(data.root)
        self._lists = data.root / "imageLists"

    @property
    def coding(self) -> Coding:
        """0 is unlabelled and becomes 255; of 1 to 182, the 171 values that occur are classes in their order."""
        return published_coding({0: IGNORE} | {value: label for label, value in enumerate(COCO_STUFF_IDS)}, _read)

    def structure(self) -> tuple[list[Path], list[Path]]:
        """Return two folders and two lists."""
        return [self._root / "images", self._root / "annotations"], [
            self._lists / "train.txt",
            self._lists / "test.txt",
        ]

    def list_training(self) -> list[Pair]:
        """Return the images of the list."""
        return self._list("train")

    def list_validation(self) -> list[Pair]:
        """Return the images of the list."""
        return self._list("test")

    def _list(self, part: str) -> list[Pair]:
        images, masks = self._root / "images", self._root / "annotations"
        names = read_names(self._lists / f"{part}.txt")
        return [Pair(name, images / f"{name}.jpg", masks / f"{name}.mat") for name in names]


def _read(path: Path) -> NDArray[np.uint8]:
    return matlab_mask(path, "S")
