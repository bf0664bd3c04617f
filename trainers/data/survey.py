"""A look at a folder: which file is whose mask, what masks hold, and the settings that read them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from pydantic import ValidationError

from trainers.config import IGNORE, FolderData
from trainers.config.base import SMALLEST_VIEW
from trainers.config.data import MOST_CLASSES, NO_LABEL, SIDE_STEP, STEM
from trainers.data.draw import draw_parts
from trainers.data.files import MOST_STRETCHED, VALUES, Pair, classes_in, image_size, require_masks
from trainers.data.folder import IMAGE_SUFFIXES, SHOWN, FolderReader, image_files, list_pairs
from trainers.data.masks import Colour, IndexMasks, colour_mask
from trainers.data.threads import in_threads
from trainers.errors import DataError
from trainers.overrides import describe

Item = TypeVar("Item")

TRAINING, VALIDATION = ("train", "training", "."), ("val", "valid", "validation")
"""Folders that are looked for below the root; `.`: the root itself holds images and masks."""
MOST_MASKS, FEWEST_MASKS, MOST_PIXELS = 400, 20, 1e9
"""How many masks are read: the most, or as many as have these pixels together, but not fewer than the fewest."""
LONGEST_SIDE = 320
"""Of the proposed height and width; training from random weights on a CPU bears no more."""
MOST_SPARSE = 32
"""Values with gaps between them that can be classes; more are the edges of smoothed masks."""
MOST_DEV = 60
"""Images that are proposed for dev, at most: a quarter of those with masks."""
VOID: Colour = (224, 224, 192)
"""'No label' in PASCAL VOC's colours, which many tools write."""

Key = int | Colour
"""What stands in a mask: a value, or a colour where masks are read by colours."""


class Found(NamedTuple):
    """A value or colour of the masks that were read."""

    key: Key
    name: str
    """Of its class, or `ignore`."""
    masks: int
    """Training masks that hold it."""
    share: float
    """Of the pixels of all training masks."""


class Survey(NamedTuple):
    """What lies in a folder, and the settings that read it."""

    data: FolderData
    found: tuple[Found, ...]
    """Ascending."""
    images: int
    """For training."""
    masked: int
    """Of these, with a mask."""
    val: int
    """Images for validation."""
    read: int
    """Training and validation masks that were read; the others are taken to be alike."""
    sizes: tuple[tuple[tuple[int, int], int], ...]
    """Heights and widths of the images as they are stored, and how many have them, the most first."""


def survey_folder(root: Path, names: Sequence[str] = ()) -> Survey:
    """Look at a folder, and propose how to read it.

    Args:
        root: holds train/images and train/masks, or images and masks.
        names: of the classes, in the order of the values or colours in the masks, `ignore` among them; several values
            may have one name. None: `class_0`, `class_1`, ...

    Raises:
        DataError: one line that says what cannot be told, or what is wrong.
    """
    train, val = _part(root, TRAINING), _part(root, VALIDATION)
    if train is None:
        raise DataError(
            f"a folder must hold train/images and train/masks, got none of them in {root}: put the images there, and "
            "masks for those that are labelled"
        )
    pattern = find_pattern(root / train / "images", root / train / "masks")
    fields: dict[str, Any] = {"root": root, "train": train, "val": val or VALIDATION[0], "mask_pattern": pattern}
    plain = FolderData(**fields, classes=("a", "b"), height=SMALLEST_VIEW, width=SMALLEST_VIEW)
    pairs, others = list_pairs(plain, train), list_pairs(plain, val) if val else ()
    require_masks(others, "validation")
    masked = [pair for pair in pairs if pair.has_mask]
    if len(masked) < 2 or len(pairs) < 3:
        raise DataError(
            f"three training images must be there, two of them with masks, got {len(pairs)} and {len(masked)} in "
            f"{root / train}: add images, or label more"
        )
    sizes = _sizes([*pairs, *others])
    most = max(FEWEST_MASKS, min(MOST_MASKS, int(MOST_PIXELS / math.prod(sizes[0][0]))))
    sample, sample_val = _spaced(masked, most), _spaced(others, most // 4)
    counts = _read([*sample, *sample_val])
    meaning, found = _meaning(counts[: len(sample)], counts[len(sample) :], names)
    (height, width), fit = propose_shape(sizes)
    try:
        data = FolderData(**fields, **meaning, height=height, width=width, fit=fit)
    except ValidationError as error:  # names that are none
        raise DataError(describe(error)) from None
    classes_in(FolderReader(data).coding, [*sample, *sample_val])  # refuses masks of another size than their image
    data = _with_splits(data, len(masked), len(pairs) - len(masked))
    return Survey(data, found, len(pairs), len(masked), len(others), len(counts), sizes)


def _part(root: Path, names: Sequence[str]) -> str | None:
    return next((name for name in names if (root / name / "images").is_dir()), None)


def find_pattern(images: Path, masks: Path) -> str:
    """Return what masks are called after their images, `{stem}.png`, `{stem}_mask.png`, ...: what fits the most.

    Raises:
        DataError: there are no images or masks, none is named after an image, or they were saved with loss.
    """
    stems = {path.stem for path in image_files(images)}
    there = {path.name for path in masks.iterdir()} if masks.is_dir() else set()
    there = {name for name in there if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")}
    if not there:
        raise DataError(f"masks must lie in {masks}, got none: add one, as PNG, for each image that is labelled")
    some = _spaced(sorted(there), FEWEST_MASKS)
    proposed = {name.replace(stem, STEM, 1) for name in some for stem in stems if stem in name}
    fitting = {pattern: len(there & {pattern.replace(STEM, stem) for stem in stems}) for pattern in proposed}
    if not fitting:
        raise DataError(
            f"masks must be named after their images, got {some[0]} in {masks} and no such name in {images}: rename "
            "them, NAME.png for NAME.jpg"
        )
    pattern = max(fitting, key=lambda pattern: (fitting[pattern], -len(pattern), pattern))
    if pattern.lower().endswith((".jpg", ".jpeg")):
        raise DataError(
            f"masks must be saved without loss, got {some[0]} in {masks}: JPEG changes values where classes meet; save "
            "them as PNG from where they were drawn"
        )
    return pattern


def _sizes(pairs: Sequence[Pair]) -> tuple[tuple[tuple[int, int], int], ...]:
    sizes: list[tuple[int, int]] = [(0, 0)] * len(pairs)

    def read(index: int) -> None:
        sizes[index] = image_size(pairs[index].image, oriented=True)

    in_threads(read, range(len(pairs)))
    return tuple(Counter(sizes).most_common())


def _spaced(items: Sequence[Item], most: int) -> list[Item]:
    """Return all items, or `most` of them, evenly spaced."""
    return [items[at * len(items) // most] for at in range(most)] if len(items) > most else [*items]


def _read(pairs: Sequence[Pair]) -> list[dict[Key, int]]:
    """Return the pixels of each value in each mask; of each colour, where values do not mean the same in all."""
    counts: list[dict[Key, int]] = [{}] * len(pairs)
    index_masks = IndexMasks()

    def values(at: int) -> None:
        pixels = np.bincount(index_masks(pairs[at].mask).ravel(), minlength=VALUES)
        counts[at] = {int(value): int(pixels[value]) for value in np.flatnonzero(pixels)}

    def colours(at: int) -> None:
        path = pairs[at].mask
        found = colour_mask(path).getcolors(MOST_CLASSES + 1)
        if found is None:
            raise DataError(
                f"masks must hold one colour a class, got more than {MOST_CLASSES + 1} in {path}: it is a photo, or "
                "was saved with loss or smoothing; save masks as PNG from where they were drawn"
            )
        counts[at] = {cast("Colour", colour): pixels for pixels, colour in found}

    try:
        in_threads(values, range(len(pairs)))
    except DataError:  # colours, palettes that differ; or a file that cannot be read, which this says again
        in_threads(colours, range(len(pairs)))
    return counts


def _meaning(
    train: Sequence[Mapping[Key, int]], val: Sequence[Mapping[Key, int]], names: Sequence[str]
) -> tuple[dict[str, Any], tuple[Found, ...]]:
    """Return the settings that say what is in masks, and what is in them."""
    pixels, held = Counter[Key](), Counter[Key]()
    for mask in train:
        pixels.update(mask)
        held.update(mask.keys())
    keys = sorted({*pixels, *(key for mask in val for key in mask)}, key=lambda key: (key,) if _is_value(key) else key)
    _require_plausible(keys)
    named = _named(keys, names)
    classes = tuple(dict.fromkeys(name for name in named.values() if name != NO_LABEL))
    absent = [name for name in classes if not any(held[key] for key in keys if named[key] == name)]
    meaning: dict[str, Any] = {"classes": classes, "allow_missing": bool(absent)}
    labels = {key: name for key, name in named.items() if name != NO_LABEL}
    if not _is_value(keys[0]):
        meaning["palette"] = {name: key for key, name in named.items()}
    elif labels != dict(enumerate(classes)) or not {*named} - {*labels} <= {IGNORE}:
        meaning["values"] = named
    found = tuple(Found(key, name, held[key], pixels[key] / pixels.total()) for key, name in named.items())
    return meaning, found


def _is_value(key: Key) -> bool:
    return isinstance(key, int)


def _require_plausible(keys: Sequence[Key]) -> None:
    """Refuse what cannot be the classes of masks."""
    if len(keys) > MOST_CLASSES + 1 or (len(keys) > MOST_SPARSE and _is_value(keys[0]) and not _dense(keys[:-1])):
        raise DataError(
            f"masks must hold one value a class, got {len(keys)} of them, {words(keys)}: they were saved with loss or "
            "smoothing; save masks as PNG from where they were drawn"
        )
    if len([key for key in keys if key not in _void(keys)]) < 2:
        raise DataError(f"masks must hold two classes at least, got {words(keys)} alone: draw a second one")


def _dense(values: Sequence[Key]) -> bool:
    """Return whether values look like indices of classes: not many are left out."""
    return len(values) > 1 and cast("int", values[-1]) < 2 * len(values)


def _void(keys: Sequence[Key]) -> set[Key]:
    """Return what is likely to mean 'no label': 255 beside indices, VOC's colour of borders."""
    if not _is_value(keys[0]):
        return set[Key]((VOID,)) & {*keys}
    return {keys[-1]} if keys[-1] in (IGNORE, VALUES - 1) and _dense(keys[:-1]) else set()


def _named(keys: Sequence[Key], names: Sequence[str]) -> dict[Key, str]:
    """Return the name of the class of each key, or `ignore`."""
    void = _void(keys)
    classes = [key for key in keys if key not in void]
    if not names:
        numbered = {key: f"class_{key if _is_value(key) else at}" for at, key in enumerate(classes)}
        return {key: numbered.get(key, NO_LABEL) for key in keys}
    if len(names) not in (len(keys), len(classes)):
        without = f" (or all but {words([*void])})" if void else ""
        raise DataError(
            f"--classes must name what masks hold, {len(keys)} values{without}: {words(keys)}, got {len(names)} names: "
            f"give one for each, in this order, {NO_LABEL} for no label"
        )
    given = dict(zip(keys if len(names) == len(keys) else classes, names, strict=True))
    if not _is_value(keys[0]) and len({*names}) < len(names):
        raise DataError(
            f"--classes must name each colour apart, got {', '.join(names)}: recolour masks where two are one class"
        )
    return {key: given.get(key, NO_LABEL) for key in keys}


def words(keys: Sequence[Key]) -> str:
    """Return values or colours for people, the first ones where there are many."""
    shown = ", ".join(str(key if _is_value(key) else list(cast("Colour", key))) for key in keys[:SHOWN])
    return f"{shown} and {len(keys) - SHOWN} more" if len(keys) > SHOWN else shown


def propose_shape(sizes: Sequence[tuple[tuple[int, int], int]]) -> tuple[tuple[int, int], str]:
    """Return a height and width for images of these sizes, and `data.fit`: `exact`, or `pad` where aspects differ.

    No side is longer than `LONGEST_SIDE`, none than the image's own but to reach a multiple of 4, and the aspect ratio
    is that of most images; where fewer than half agree, the shape is a square.
    """
    (height, width), _ = sizes[0]
    alike = sum(count for size, count in sizes if _apart(size, (height, width)) <= MOST_STRETCHED)
    if 2 * alike < sum(count for _, count in sizes):
        height = width = max(max(size) for size, _ in sizes)
    longest = max(SMALLEST_VIEW, min(LONGEST_SIDE, max(height, width)))
    longest += -longest % SIDE_STEP
    steps = range(longest, max(SMALLEST_VIEW, longest // 2) - 1, -SIDE_STEP)
    shapes = [_rounded(height, width, side) for side in steps]
    best = min(shapes, key=lambda shape: (max(0.01, _apart(shape, (height, width))), -max(shape)))
    exact = all(_apart(size, best) <= MOST_STRETCHED for size, _ in sizes)
    return best, "exact" if exact else "pad"


def _rounded(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return the height and width with this longer side whose aspect ratio is the nearest."""
    sides = (SIDE_STEP * round(longest * side / max(height, width) / SIDE_STEP) for side in (height, width))
    first, second = (max(SMALLEST_VIEW, side) for side in sides)
    return first, second


def _apart(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return how far two aspect ratios are apart: the logarithm of their ratio."""
    return abs(math.log(one[0] / one[1] * other[1] / other[0]))


def _with_splits(data: FolderData, masked: int, unmasked: int) -> FolderData:
    """Return the settings with numbers of labelled and dev images such that every class can be among the labelled.

    Raises:
        DataError: there are too few masks for that.
    """
    dev = min(MOST_DEV, max(1, masked // 4))
    left = masked - dev
    labelled = left if unmasked else min(left - 1, max(len(data.classes), left // 4))
    proposed = data.model_copy(update={"labelled": labelled, "dev": dev})
    if labelled >= len(data.classes):  # an image for each class is always enough
        return proposed
    try:
        draw_parts(proposed, FolderReader(proposed))
    except DataError:
        proposed = data.model_copy(update={"labelled": masked - 1 - (not unmasked), "dev": 1})
        draw_parts(proposed, FolderReader(proposed))
    return proposed
