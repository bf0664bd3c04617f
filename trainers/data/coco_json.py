"""COCO annotations (instances in JSON) as masks of class indices, which a folder of images can be trained with."""

from __future__ import annotations

import io
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainers.config import IGNORE
from trainers.errors import DataError, UsageError

BACKGROUND = "background"


class CocoMasks(NamedTuple):
    """Masks of the images that have annotations."""

    classes: tuple[str, ...]
    """Background, then the categories in the order of their ids."""
    draw: Callable[[], Iterator[tuple[str, NDArray[np.uint8]]]]
    """Yields the name of each annotated image, without its extension, and its labels [H, W], one at a time."""
    annotated: int
    """Annotated images."""
    without: int
    """Images without annotations, of which there is no mask: they count as not labelled."""


def read_coco(path: Path) -> CocoMasks:
    """Return the masks of a file of instances: polygons or run lengths, of one category each.

    Where instances overlap, the smaller one lies on top. Pixels of a crowd (`iscrowd`) are 255 where none lies on it.
    All are drawn once to find what is wrong.

    Raises:
        UsageError: pycocotools is not installed.
        DataError: the file is not such a file, or its images share names.
    """
    try:
        from pycocotools.coco import COCO
    except ImportError:
        raise UsageError("pycocotools must be installed to read COCO annotations: pip install pycocotools") from None
    coco = COCO()
    try:
        coco.dataset = json.loads(path.read_text(encoding="utf-8"))
        with redirect_stdout(io.StringIO()):  # which it tells its progress
            coco.createIndex()
        return _masks(coco, path)
    except DataError:
        raise
    except Exception as error:  # what pycocotools raises on other content is not said
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path} must be a JSON file of COCO instances, got '{reason}': correct the path") from error


def _masks(coco: Any, path: Path) -> CocoMasks:
    ids = sorted(coco.cats)
    classes = (BACKGROUND, *(str(coco.cats[key]["name"]) for key in ids))
    if len(classes) > IGNORE - 1 or len(set(classes)) < len(classes):
        raise DataError(
            f"categories must be at most {IGNORE - 2} different names other than {BACKGROUND}, got {len(ids)} in "
            f"{path}: rename or remove some"
        )
    annotated = sorted({instance["image_id"] for instance in coco.dataset["annotations"]})
    names = [Path(coco.imgs[key]["file_name"]).stem for key in annotated]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(f"names of images must be unique, got {twice[0]} twice in {path}: rename one")
    labels = {key: label for label, key in enumerate(ids, start=1)}

    def masks() -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for name, key in zip(names, annotated, strict=True):
            yield name, _drawn(coco, coco.imgs[key], labels)

    deque(masks(), maxlen=0)  # all can be drawn before one is written
    return CocoMasks(classes, masks, len(annotated), len(coco.imgs) - len(annotated))


def _drawn(coco: Any, image: dict[str, Any], labels: dict[int, int]) -> NDArray[np.uint8]:
    drawn = np.zeros((image["height"], image["width"]), np.uint8)
    instances = [
        (coco.annToMask(instance), IGNORE if instance.get("iscrowd") else labels[instance["category_id"]])
        for instance in coco.imgToAnns[image["id"]]
    ]
    for shape, label in sorted(instances, key=lambda it: (it[1] != IGNORE, -int(it[0].sum()))):
        drawn[shape > 0] = label
    return drawn
