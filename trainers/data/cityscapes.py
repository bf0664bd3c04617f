"""Cityscapes with fine labels."""

from __future__ import annotations

from pathlib import Path

from trainers.config import IGNORE, CityscapesData
from trainers.data.files import Coding, Pair
from trainers.data.reader import PublishedReader, published_coding

IMAGE_END, MASK_END = "_leftImg8bit", "_gtFine_labelIds"


class CityscapesReader(PublishedReader):
    """2975 training images of 18 cities and 500 of 3 others; an image's name is CITY_SEQUENCE_FRAME."""

    title = "Cityscapes"
    where = "https://www.cityscapes-dataset.com/downloads/ (leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip)"
    layout: tuple[str, ...] = (
        "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png",
        "gtFine/{train,val}/CITY/*_gtFine_labelIds.png",
    )

    def __init__(self, data: CityscapesData) -> None:
        super().__init__(data.root)

    @property
    def coding(self) -> Coding:
        """Of the 34 ids, 19 are classes; the others are not scored and become 255."""
        # Imported here: torchvision takes seconds to import, which readers of other data need not wait for.
        from torchvision.datasets import Cityscapes

        labels = {kind.id: IGNORE if kind.ignore_in_eval else kind.train_id for kind in Cityscapes.classes}
        # A licence plate is -1, which is 255 in one byte.
        return published_coding({value % 256: label for value, label in labels.items()})

    def structure(self) -> tuple[list[Path], list[Path]]:
        """Return the four folders."""
        kinds, parts = ("leftImg8bit", "gtFine"), ("train", "val")
        return [self._root / kind / part for kind in kinds for part in parts], []

    def list_training(self) -> list[Pair]:
        """Return every image of the cities' folders."""
        return self._list("train")

    def list_validation(self) -> list[Pair]:
        """Return every image of the cities' folders."""
        return self._list("val")

    def key(self, entry: str) -> str:
        """Return CITY_SEQUENCE_FRAME."""
        return Path(entry).stem.removesuffix(IMAGE_END)

    def _list(self, part: str) -> list[Pair]:
        masks = self._root / "gtFine" / part
        images = [
            (self.key(str(path)), path) for path in (self._root / "leftImg8bit" / part).glob(f"*/*{IMAGE_END}.png")
        ]
        return [Pair(name, path, masks / path.parent.name / f"{name}{MASK_END}.png") for name, path in images]
