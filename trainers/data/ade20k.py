"""ADE20K as of the scene parsing challenge of 2016."""

from __future__ import annotations

from pathlib import Path

from trainers.config import IGNORE, Ade20kData
from trainers.data.files import Coding, Pair
from trainers.data.reader import PublishedReader, published_coding


class Ade20kReader(PublishedReader):
    """20 210 training and 2000 validation images."""

    title = "ADE20K (ADEChallengeData2016)"
    where = "http://sceneparsing.csail.mit.edu/ (ADEChallengeData2016.zip; the root is the folder in it)"
    layout: tuple[str, ...] = ("images/{training,validation}/*.jpg", "annotations/{training,validation}/*.png")

    def __init__(self, data: Ade20kData) -> None:
        super().__init__(data.root)
        self._classes = len(data.classes)

    @property
    def coding(self) -> Coding:
        """0 is everything else and becomes 255; 1 to 150 are the classes."""
        return published_coding({0: IGNORE} | {value: value - 1 for value in range(1, self._classes + 1)})

    def structure(self) -> tuple[list[Path], list[Path]]:
        """Return the four folders."""
        kinds, parts = ("images", "annotations"), ("training", "validation")
        return [self._root / kind / part for kind in kinds for part in parts], []

    def list_training(self) -> list[Pair]:
        """Return every image of the folder."""
        return self._list("training")

    def list_validation(self) -> list[Pair]:
        """Return every image of the folder."""
        return self._list("validation")

    def _list(self, part: str) -> list[Pair]:
        masks = self._root / "annotations" / part
        images = (self._root / "images" / part).glob("*.jpg")
        return [Pair(image.stem, image, masks / f"{image.stem}.png") for image in images]
