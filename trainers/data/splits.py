"""Splits of the data: labelled, unlabelled, held back for the objective, and for the final evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, assert_never

from trainers.config import (
    Ade20kData,
    CityscapesData,
    CocoStuffData,
    DigitsData,
    FileData,
    FolderData,
    VocData,
)
from trainers.data.ade20k import Ade20kReader
from trainers.data.cityscapes import CityscapesReader
from trainers.data.coco_stuff import CocoStuffReader
from trainers.data.digits import DigitsSource
from trainers.data.draw import draw_parts, read_list
from trainers.data.files import FileSource, Tally, require_masks
from trainers.data.folder import FolderReader, content_of, require_classes
from trainers.data.reader import Reader
from trainers.data.source import ImageSource
from trainers.data.voc import VocReader
from trainers.drafts import draft_of
from trainers.errors import DataError

DIGEST = "digest.txt"
"""File beside the lists that holds the hash of the splits."""


class Splits(NamedTuple):
    """The training data in three disjoint parts."""

    labelled: ImageSource
    """Read with labels."""
    unlabelled: ImageSource
    """Everything else; labels, where there are any, only measure pseudo-labels. May be empty."""
    dev: ImageSource
    """Held back for the objective."""

    @property
    def digest(self) -> str:
        """Hash of which image is in which part, to tell runs on equal splits. 12 hexadecimal digits."""
        lines = (f"{role}/{name}\n" for role, source in self._asdict().items() for name in sorted(source.names))
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def open_splits(data: DigitsData | FileData) -> Splits:
    """Return the parts of the training data; images are read when they are fetched.

    The last four data sets stay open in this process with what was read of them, so a second trial finds them ready.

    Raises:
        DataError: folders, lists or numbers of images do not fit.
    """
    return _open_splits(data)


def open_val(data: DigitsData | FileData) -> ImageSource:
    """Return the validation images, which only a final evaluation reads.

    Raises:
        DataError: the folder is missing or empty, or an image has no mask.
    """
    if isinstance(data, DigitsData):
        return DigitsSource(data, "val")
    reader = open_reader(data)
    return FileSource(reader.coding, reader.validation())


def open_test(data: DigitsData | FileData) -> ImageSource:
    """Return the images that `data.test` lists, which only a final test reads.

    Raises:
        DataError: there is no list, it does not fit the images, or one of them has no mask.
    """
    if isinstance(data, DigitsData) or data.test is None:
        raise DataError("data.test must be a list of names (a file) to have test images, got none: set it, and train")
    reader = open_reader(data)
    pairs = {pair.name: pair for pair in reader.training().pairs}
    chosen = [pairs[name] for name in sorted(read_list(data.test, "test", pairs, reader.key))]
    require_masks(chosen, "test")
    return FileSource(reader.coding, chosen)


def open_scored(data: DigitsData | FileData, split: str) -> ImageSource:
    """Return the images of a split that is scored: `dev`, `val` or `test`.

    Raises:
        DataError: they are not there, or one has no mask.
    """
    opened: dict[str, Callable[[DigitsData | FileData], ImageSource]] = {"val": open_val, "test": open_test}
    return opened[split](data) if split in opened else open_splits(data).dev


def open_reader(data: FileData) -> Reader:
    """Return the reader of a data set on disk; nothing is read."""
    match data:
        case FolderData():
            return FolderReader(data)
        case VocData():
            return VocReader(data)
        case CityscapesData():
            return CityscapesReader(data)
        case Ade20kData():
            return Ade20kReader(data)
        case CocoStuffData():
            return CocoStuffReader(data)
        case _:
            assert_never(data)


def verify(data: DigitsData | FileData, *, needs_unlabelled: bool = False) -> None:
    """Make sure that all of the data can be read, training and validation, before anything is started.

    Decodes every image and mask of a folder once and keeps none; its validation images may be missing, for only a final
    evaluation reads them. Of a published data set, checks that every file is there, and decodes what the splits are
    drawn by. Digits have nothing to check.

    Args:
        data: What to read.
        needs_unlabelled: Whether training reads unlabelled images, so that there must be some.

    Raises:
        DataError: says which file breaks which rule, or which class no training mask of a folder holds.
    """
    if isinstance(data, DigitsData):
        return
    reader, tally = open_reader(data), Tally()
    sources = list(_file_splits(data, reader))
    if needs_unlabelled:
        require_unlabelled(data, len(sources[1]))
    val: list[ImageSource] = [FileSource(reader.coding, reader.validation())] if reader.has_validation else []
    if data.test is not None:
        val.append(open_test(data))
    if isinstance(data, FolderData):
        check_files(sources, tally)
        require_classes(data, content_of(reader.coding, data.classes, tally.pixels))
        check_files(val)


def require_unlabelled(data: FileData, count: int) -> None:
    """Make sure that unlabelled images remain.

    Raises:
        DataError: there are none.
    """
    if not count:
        raise DataError(
            f"unlabelled images must remain beside data.labelled={data.labelled} and data.dev={data.dev}, got none in "
            f"{data.root}: lower one of them, or set loss.lambda_u and loss.lambda_c to 0"
        )


def check_files(sources: Sequence[ImageSource], tally: Tally | None = None) -> None:
    """Decode every image and mask and keep none; the mask values are counted in `tally`.

    Raises:
        DataError: names the first one that cannot be read or breaks a rule.
    """
    for source in sources:
        if isinstance(source, FileSource):
            source.check(tally)


def write_splits(splits: Splits, folder: Path) -> None:
    """Write labelled.txt, unlabelled.txt, dev.txt and digest.txt into a folder, which is made where it is missing.

    A list is one name a line; given back as `data.labelled` and `data.dev`, the lists make the same splits, with the
    same digest. Each file is written whole or not at all, the digest last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for role, source in splits._asdict().items():
        _write(folder / f"{role}.txt", "".join(f"{name}\n" for name in source.names))
    _write(folder / DIGEST, f"{splits.digest}\n")


def _write(path: Path, text: str) -> None:
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")


@lru_cache(maxsize=4)
def _open_splits(data: DigitsData | FileData) -> Splits:
    if isinstance(data, DigitsData):
        return Splits(DigitsSource(data, "labelled"), DigitsSource(data, "unlabelled"), DigitsSource(data, "dev"))
    return _file_splits(data, open_reader(data))


def _file_splits(data: FileData, reader: Reader) -> Splits:
    parts = draw_parts(data, reader)
    pairs = {pair.name: pair for pair in reader.training().pairs}
    chosen = {role: [pairs[name] for name in names] for role, names in parts._asdict().items()}
    for role in ("labelled", "dev"):
        require_masks(chosen[role], role)
    return Splits(**{role: FileSource(reader.coding, part) for role, part in chosen.items()})
