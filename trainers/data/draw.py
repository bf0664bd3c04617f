"""Draw of the labelled and held-back training images: lists as they are, numbers drawn with a seed."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainers.config import FileData
from trainers.data.files import classes_in
from trainers.data.reader import Reader, Training
from trainers.errors import DataError

ClassesOf = Callable[[Sequence[str]], Mapping[str, frozenset[int]]]
"""Returns the classes in the masks of these images, by name."""


class Parts(NamedTuple):
    """Names of the training images, each part sorted."""

    labelled: list[str]
    unlabelled: list[str]
    dev: list[str]


def draw_parts(data: FileData, reader: Reader) -> Parts:
    """Return the labelled images, those held back, and all others but those of the test.

    Lists are taken as they are. Numbers are taken from one shuffle, by `seed`, of the sorted names that have masks: dev
    first, so that dev does not change with the number of labelled images, then the labelled ones, by `cover_classes`.

    Raises:
        DataError: lists or numbers do not fit the images.
    """
    training = reader.training()
    pairs = {pair.name: pair for pair in training.pairs}
    listed = {
        role: read_list(path, role, pairs, reader.key)
        for role, path in (("dev", data.dev), ("labelled", data.labelled), ("test", data.test))
        if isinstance(path, Path)
    }
    _require_disjoint(listed)
    taken = {name for names in listed.values() for name in names}
    masked = sorted(name for name, pair in pairs.items() if pair.has_mask and name not in taken)
    shuffled = [masked[at] for at in np.random.default_rng(data.seed).permutation(len(masked))]
    _require_enough(data, training, shuffled)
    if isinstance(data.dev, int):
        listed["dev"] = _within(shuffled, training.dev_from)[: data.dev]
        shuffled = [name for name in shuffled if name not in set(listed["dev"])]
    if isinstance(data.labelled, int):

        def classes_of(names: Sequence[str]) -> dict[str, frozenset[int]]:
            return classes_in(reader.coding, [pairs[name] for name in names])

        order = _within(shuffled, training.labelled_from)
        if len(order) < data.labelled:
            raise DataError(
                f"data.labelled={data.labelled} must be at most the training images that it is drawn from, got "
                f"{len(order)} that are not held back for dev in {data.root}: ask for fewer, or lower data.dev"
            )
        listed["labelled"] = cover_classes(order, data.labelled, data.classes, classes_of)
    rest = pairs.keys() - {*listed["labelled"], *listed["dev"], *listed.get("test", ())}
    return Parts(sorted(listed["labelled"]), sorted(rest), sorted(listed["dev"]))


def cover_classes(order: Sequence[str], count: int, classes: Sequence[str], classes_of: ClassesOf) -> list[str]:
    """Return `count` names in whose masks every class occurs: the first ones of `order`, as far as that goes.

    For each class, the rarest first, that no chosen image holds, the first image in the order that holds it is chosen;
    the rest are the first others. So a beginning of the order that holds all classes is what is returned, and more
    images include the fewer. A class that occurs in no mask at all draws a warning and needs no image. All masks are
    read only where the beginning of the order lacks a class.

    Raises:
        DataError: `count` images cannot hold all classes.
    """
    classes_by_name = dict(classes_of(order[:count]))
    if not set(range(len(classes))) - frozenset().union(*classes_by_name.values()):
        return list(order[:count])
    classes_by_name |= classes_of(order[count:])
    frequency = Counter(kind for kinds in classes_by_name.values() for kind in kinds)
    absent = [name for kind, name in enumerate(classes) if kind not in frequency]
    if absent:
        warnings.warn(f"no training image that may be labelled holds {_abbreviate(absent)}", stacklevel=2)
    rarest_first = sorted(frequency, key=lambda kind: (frequency[kind], kind))
    chosen = _choose(order, rarest_first, classes_by_name, lambda name, lacking: 0)
    if len(chosen) > count:
        chosen = _choose(
            order, rarest_first, classes_by_name, lambda name, lacking: -len(classes_by_name[name] & lacking)
        )
    if len(chosen) > count:
        raise DataError(
            f"data.labelled must be enough images to hold each class once, got {count}, and {len(chosen)} were needed "
            f"for {len(frequency)} classes: label more, or give a list"
        )
    others = [name for name in order if name not in chosen]
    return [*chosen, *others[: count - len(chosen)]]


def _choose(
    order: Sequence[str],
    kinds: Sequence[int],
    classes_by_name: Mapping[str, frozenset[int]],
    rank: Callable[[str, set[int]], int],
) -> set[str]:
    """Return an image for each class that the earlier ones lack: of least rank, the first in the order."""
    chosen: set[str] = set()
    lacking = set(kinds)
    for kind in kinds:
        if kind in lacking:
            best = min((name for name in order if kind in classes_by_name[name]), key=lambda name: rank(name, lacking))
            chosen.add(best)
            lacking -= classes_by_name[best]
    return chosen


def read_list(path: Path, role: str, pairs: Collection[str], key: Callable[[str], str]) -> list[str]:
    """Return the names in a list of splits, one image a line: its name, or a path, whose first word counts.

    Published lists have lines such as `JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png`.

    Raises:
        DataError: the list cannot be read, is empty, repeats a name or holds an unknown one.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        what = "a text file of names" if role == "test" else "a number or a text file of names"
        raise DataError(f"data.{role} must be {what}, got {path}: {error}") from error
    if not lines:
        raise DataError(f"data.{role} must list at least one name, got none in {path}: add names, one a line")
    names = [_named(line, pairs, key) for line in lines]
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise DataError(f"data.{role} must list a name once, got {repeated[0]} again in {path}: remove one")
    unknown = [name for name in names if name not in pairs]
    if unknown:
        raise DataError(
            f"data.{role} must list names (no extension) of training images, got {len(unknown)} unknown, "
            f"the first {unknown[0]}, in {path}: correct the list"
        )
    return names


def _named(line: str, pairs: Collection[str], key: Callable[[str], str]) -> str:
    first, *others = line.split()
    if line in pairs or not (others or "/" in first):
        return line
    return key(first)


def _require_disjoint(listed: Mapping[str, Sequence[str]]) -> None:
    for one, other in combinations(sorted(listed, reverse=True), 2):
        if shared := sorted({*listed[one]} & {*listed[other]}):
            raise DataError(
                f"data.{one} and data.{other} must share no image, got {shared[0]} in both lists ({len(shared)} in "
                "all): remove it from one"
            )


def _require_enough(data: FileData, training: Training, names: Sequence[str]) -> None:
    """Refuse numbers that are larger than what they are drawn from; both together, where that is the same."""
    counts = {role: count for role, count in (("dev", data.dev), ("labelled", data.labelled)) if isinstance(count, int)}
    pools = {"dev": training.dev_from, "labelled": training.labelled_from}
    together = [list(counts)] if pools["dev"] == pools["labelled"] else [[role] for role in counts]
    for roles in together:
        if roles and sum(counts[role] for role in roles) > len(_within(names, pools[roles[0]])):
            raise DataError(
                f"{' + '.join(f'data.{role}={counts[role]}' for role in roles)} must be at most the training images "
                f"that it is drawn from, which have masks and are in no list, got "
                f"{len(_within(names, pools[roles[0]]))} in {data.root}: ask for fewer, or add masks"
            )


def _within(names: Sequence[str], pool: frozenset[str] | None) -> list[str]:
    return [name for name in names if pool is None or name in pool]


def _abbreviate(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more classes" if len(names) > 5 else "")
