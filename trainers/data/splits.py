"""Which images are labelled, unlabelled, held back for the objective, and for the final evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainers.config import DigitsData, FolderData
from trainers.data.digits import DigitsSource
from trainers.data.folder import FolderSource, Pair, list_pairs, require_masks
from trainers.data.source import ImageSource
from trainers.errors import DataError


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
        roles = {"labelled": self.labelled, "unlabelled": self.unlabelled, "dev": self.dev}
        lines = (f"{role}/{name}\n" for role, source in roles.items() for name in sorted(source.names))
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def open_splits(data: DigitsData | FolderData) -> Splits:
    """Return the parts of the training data; images are read when they are fetched.

    The last four data sets stay open in this process with what was read of them, so a second trial finds them ready.

    Raises:
        DataError: folders, lists or numbers of images do not fit.
    """
    return _open_splits(data)


def open_val(data: DigitsData | FolderData) -> ImageSource:
    """Return the validation images, which only a final evaluation reads.

    Raises:
        DataError: the folder is missing or empty, or an image has no mask.
    """
    return DigitsSource(data, "val") if isinstance(data, DigitsData) else _folder_val(data)


def verify(data: DigitsData | FolderData, *, needs_unlabelled: bool = False) -> None:
    """Make sure that all of the data can be read, training and validation, before anything is started.

    Decodes every image and mask once and keeps none. Digits have nothing to check.

    Args:
        data: What to read.
        needs_unlabelled: Whether training reads unlabelled images, so that there must be some.

    Raises:
        DataError: says which file breaks which rule.
    """
    if isinstance(data, DigitsData):
        return
    sources = [*_folder_splits(data), _folder_val(data)]
    if needs_unlabelled and not len(sources[1]):
        raise DataError(
            f"unlabelled images must remain beside data.labelled={data.labelled} and data.dev={data.dev}, got none in "
            f"{data.root / data.train}: lower one of them, or set loss.lambda_u and loss.lambda_c to 0"
        )
    for source in sources:
        source.check()


@lru_cache(maxsize=4)
def _open_splits(data: DigitsData | FolderData) -> Splits:
    if isinstance(data, DigitsData):
        return Splits(DigitsSource(data, "labelled"), DigitsSource(data, "unlabelled"), DigitsSource(data, "dev"))
    return Splits(*_folder_splits(data))


def _folder_val(data: FolderData) -> FolderSource:
    pairs = list_pairs(data, data.val)
    require_masks(pairs, "validation")
    return FolderSource(data, pairs)


def _folder_splits(data: FolderData) -> tuple[FolderSource, FolderSource, FolderSource]:
    """Return labelled, unlabelled, dev.

    Lists are taken as they are. Numbers are taken from one shuffle, by `seed`, of the sorted names that have masks: dev
    first, so that dev does not change with the number of labelled images, and more labelled images include the fewer.
    """
    pairs = {pair.name: pair for pair in list_pairs(data, data.train)}
    listed = {
        role: _read_list(path, role, pairs)
        for role, path in (("dev", data.dev), ("labelled", data.labelled))
        if isinstance(path, Path)
    }
    _require_disjoint(listed)
    taken = {name for names in listed.values() for name in names}
    masked = sorted(name for name, pair in pairs.items() if pair.mask is not None and name not in taken)
    shuffled = [masked[at] for at in np.random.default_rng(data.seed).permutation(len(masked))]
    counts = {role: count for role, count in (("dev", data.dev), ("labelled", data.labelled)) if isinstance(count, int)}
    if sum(counts.values()) > len(shuffled):
        raise DataError(
            f"{' + '.join(f'data.{role}={count}' for role, count in counts.items())} must be at most the training "
            f"images that have masks and are in no list, got {len(shuffled)} in {data.root / data.train}: "
            "ask for fewer, or add masks"
        )
    for role, count in counts.items():
        listed[role], shuffled = sorted(shuffled[:count]), shuffled[count:]
    labelled, dev = (_pick(pairs, listed[role]) for role in ("labelled", "dev"))
    rest = _pick(pairs, sorted(pairs.keys() - {*listed["labelled"], *listed["dev"]}))
    require_masks(labelled, "labelled")
    require_masks(dev, "dev")
    return FolderSource(data, labelled), FolderSource(data, rest), FolderSource(data, dev)


def _pick(pairs: dict[str, Pair], names: Iterable[str]) -> list[Pair]:
    return [pairs[name] for name in names]


def _read_list(path: Path, role: str, pairs: dict[str, Pair]) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.{role} must be a number or a text file of names, got {path}: {error}") from error
    if not names:
        raise DataError(f"data.{role} must list at least one name, got none in {path}: add names, one a line")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"data.{role} must list a name once, got {twice} again in {path}: remove one")
    unknown = [name for name in names if name not in pairs]
    if unknown:
        raise DataError(
            f"data.{role} must list names (no extension) of training images, got {len(unknown)} unknown, "
            f"the first {unknown[0]}, in {path}: correct the list"
        )
    return sorted(names)


def _require_disjoint(listed: dict[str, list[str]]) -> None:
    both = sorted(set(listed.get("dev", ())) & set(listed.get("labelled", ())))
    if both:
        raise DataError(
            f"data.labelled and data.dev must share no image, got {both[0]} in both lists ({len(both)} in all): "
            "remove it from one"
        )
