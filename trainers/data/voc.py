"""PASCAL VOC 2012 segmentation, with SBD's labels for the images that VOC has none for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.config import IGNORE, VocData
from trainers.data.files import Coding, Pair, byte_mask
from trainers.data.reader import PublishedReader, Training, matlab_mask, published_coding, read_names


class VocReader(PublishedReader):
    """1464 training images of VOC's own, 10 582 with SBD's, and 1449 validation images.

    SBD's lists hold images of VOC's validation set; those never become training images. Where VOC has a mask of its
    own, that is the one that counts.
    """

    title = "PASCAL VOC 2012"
    where = (
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (training/validation data), and for SBD "
        "http://home.bharathh.info/pubs/codes/SBD/download.html (benchmark.tgz)"
    )
    layout: tuple[str, ...] = (
        "VOCdevkit/VOC2012/JPEGImages/*.jpg",
        "VOCdevkit/VOC2012/SegmentationClass/*.png",
        "VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt",
        "SBD, with data.augmented: VOCdevkit/VOC2012/SegmentationClassAug/*.png, "
        "or below data.sbd_root benchmark_RELEASE/dataset/{cls/*.mat,train.txt,val.txt}",
    )

    def __init__(self, data: VocData) -> None:
        super().__init__(data.root)
        self._data = data
        base = data.root / "VOCdevkit" / "VOC2012"
        self._images, self._masks = base / "JPEGImages", base / "SegmentationClass"
        self._lists = base / "ImageSets" / "Segmentation"
        self._converted = base / "SegmentationClassAug"
        self._sbd = (data.sbd_root or data.root) / "benchmark_RELEASE" / "dataset"

    @property
    def coding(self) -> Coding:
        """0 is the background, 1 to 20 are objects, 255 is void."""
        labels = {value: value for value in range(len(self._data.classes))}
        return published_coding(labels | {IGNORE: IGNORE}, _read)

    def structure(self) -> tuple[list[Path], list[Path]]:
        """Return VOC's folders and lists and, where SBD's labels are not converted to images, SBD's."""
        folders, lists = [self._images, self._masks], [self._lists / "train.txt", self._lists / "val.txt"]
        if self._data.augmented and not self._converted.is_dir():
            folders += [self._sbd / "cls"]
            lists += [self._sbd / "train.txt", self._sbd / "val.txt"]
        return folders, lists

    def list_training(self) -> list[Pair]:
        """Return VOC's images and, where `augmented`, SBD's."""
        own = {name: self._pair(name) for name in self._original}
        if not self._data.augmented:
            return list(own.values())
        added = (
            {path.stem: path for path in self._converted.glob("*.png")} if self._converted.is_dir() else self._mats()
        )
        held_out = {pair.name for pair in self.list_validation()}
        return [*own.values(), *(self._pair(name, added[name]) for name in added.keys() - own.keys() - held_out)]

    def list_validation(self) -> list[Pair]:
        """Return the images of VOC's list."""
        return [self._pair(name) for name in read_names(self._lists / "val.txt")]

    def training(self) -> Training:
        """Return the training images; `labelled_from` says which of them numbers are drawn from."""
        pairs = super().training().pairs
        if self._data.labelled_from == "augmented" or not self._data.augmented:
            return Training(pairs)
        return Training(pairs, self._original, frozenset(pair.name for pair in pairs) - self._original)

    @cached_property
    def _original(self) -> frozenset[str]:
        return frozenset(read_names(self._lists / "train.txt"))

    def _mats(self) -> dict[str, Path]:
        names = (name for part in ("train", "val") for name in read_names(self._sbd / f"{part}.txt"))
        return {name: self._sbd / "cls" / f"{name}.mat" for name in names}

    def _pair(self, name: str, mask: Path | None = None) -> Pair:
        return Pair(name, self._images / f"{name}.jpg", mask or self._masks / f"{name}.png")


def _read(path: Path) -> NDArray[np.uint8]:
    return matlab_mask(path, "GTcls", "Segmentation") if path.suffix == ".mat" else byte_mask(path)
