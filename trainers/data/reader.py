"""Readers of data sets on disk: their protocol, and what those of published data share; one module a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trainers.config import IGNORE
from trainers.data.files import Coding, Pair, byte_mask
from trainers.errors import DataError


class Training(NamedTuple):
    """The training images, sorted by name."""

    pairs: tuple[Pair, ...]
    labelled_from: frozenset[str] | None = None
    """Names that a number of labelled images is drawn from; none: all that have masks."""
    dev_from: frozenset[str] | None = None
    """Names that a number of dev images is drawn from; none: all that have masks."""


class Reader(Protocol):
    """One data set."""

    title: str
    """As people call it."""
    where: str
    """Where to get it."""
    layout: tuple[str, ...]
    """Folders and files below the root, for people."""

    @property
    def coding(self) -> Coding:
        """What its masks mean."""
        ...

    @property
    def has_validation(self) -> bool:
        """Whether there are validation images, or must be."""
        ...

    def missing(self) -> list[str]:
        """Return what is missing, a line each: folders and lists, or else files of them; nothing is decoded."""
        ...

    def training(self) -> Training:
        """Return the training images.

        Raises:
            DataError: something of them is missing.
        """
        ...

    def validation(self) -> tuple[Pair, ...]:
        """Return the validation images, sorted by name.

        Raises:
            DataError: something of them is missing.
        """
        ...

    def key(self, entry: str) -> str:
        """Return the name of the image that a path in a published list of splits means."""
        ...


class PublishedReader(ABC):
    """A data set in its official layout, complete or refused; implements `Reader`."""

    title: str
    where: str
    layout: tuple[str, ...]
    has_validation = True

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    @abstractmethod
    def coding(self) -> Coding:
        """What its masks mean."""

    @abstractmethod
    def structure(self) -> tuple[list[Path], list[Path]]:
        """Return the folders and the lists that there must be."""

    @abstractmethod
    def list_training(self) -> list[Pair]:
        """Return the training images, given the structure."""

    @abstractmethod
    def list_validation(self) -> list[Pair]:
        """Return the validation images, given the structure."""

    def missing(self) -> list[str]:
        """Return the folders and lists that are missing, or else a line for images and one for masks."""
        folders, lists = self.structure()
        lines = [f"{path} (folder)" for path in folders if not path.is_dir()]
        lines += [f"{path} (file)" for path in lists if not path.is_file()]
        if lines:
            return lines
        parts = {"training": self._training, "validation": self._validation}
        lines = [f"all {part} images in {self._root}" for part, pairs in parts.items() if not pairs]
        pairs = [pair for part in parts.values() for pair in part]
        lines += _missing_files("images", [pair.image for pair in pairs])
        return lines + _missing_files("masks", [pair.mask for pair in pairs])

    def training(self) -> Training:
        """Return the training images; labelled and dev images are drawn from all of them."""
        self._require()
        return Training(self._training)

    def validation(self) -> tuple[Pair, ...]:
        """Return the validation images."""
        self._require()
        return self._validation

    def key(self, entry: str) -> str:
        """Return a file's name without its extension."""
        return Path(entry).stem

    def _require(self) -> None:
        if self._missing:
            raise DataError(
                f"{self.title} must be complete in data.root={self._root}, got it without {'; '.join(self._missing)}: "
                "correct data.root or add what is missing (s4 data check says where to get it)"
            )

    @cached_property
    def _missing(self) -> list[str]:
        return self.missing()

    @cached_property
    def _training(self) -> tuple[Pair, ...]:
        return tuple(sorted(self.list_training()))

    @cached_property
    def _validation(self) -> tuple[Pair, ...]:
        return tuple(sorted(self.list_validation()))


def published_coding(labels: dict[int, int], read: Callable[[Path], NDArray[np.uint8]] = byte_mask) -> Coding:
    """Return the coding of a published data set: values that are no class become 255, unknown ones are refused.

    Args:
        labels: Label of each value that may occur, 255 for those that are ignored.
        read: Reads a mask's values.
    """
    table, allowed = np.full(256, IGNORE, dtype=np.uint8), np.zeros(256, dtype=bool)
    for value, label in labels.items():
        table[value], allowed[value] = label, True
    rule = "those of the official release, got {values} in {path}: unpack the archive again"
    return Coding(read, table, allowed, rule)


def matlab_mask(path: Path, *fields: str) -> NDArray[np.uint8]:
    """Read a mask of one byte a pixel from a MATLAB file: variable `fields[0]`, and of it the named fields.

    Raises:
        DataError: the file cannot be read or holds no such mask.
    """
    # Imported here: only two of the data sets need it.
    from scipy.io import loadmat

    name = ".".join(fields)
    try:
        content = loadmat(str(path), variable_names=fields[:1])[fields[0]]
        for field in fields[1:]:
            content = content[field][0, 0]
        values = np.asarray(content)
        if values.ndim != 2 or values.min() < 0 or values.max() > IGNORE:
            raise ValueError(f"{name} of shape {values.shape}")
    except Exception as error:  # SciPy's reader raises whatever a broken file leads it into
        reason = " ".join(str(error).split())
        raise DataError(f"{path} must be a MATLAB file with a mask {name}, got '{reason}': replace it") from error
    return values.astype(np.uint8)


def read_names(path: Path) -> list[str]:
    """Return the first word of each line of an official list.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be a text file of names, got '{error}': replace it") from error


def _missing_files(what: str, expected: Sequence[Path]) -> list[str]:
    present = {folder: _names(folder) for folder in {path.parent for path in expected}}  # each folder is listed once
    absent = [path for path in expected if path.name not in present[path.parent]]
    return [f"{len(absent)} of {len(expected)} {what}, the first {absent[0]}"] if absent else []


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
