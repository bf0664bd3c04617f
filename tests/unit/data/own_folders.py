"""Folders as people have them: small ones, in any coding of masks."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from trainers.config import FolderData
from trainers.data.files import FileSource
from trainers.data.folder import FolderReader

SIZE = (16, 24)  # height, width
CLASSES = ("a", "b", "c")
COLOURS = {"a": (0, 0, 0), "b": (70, 130, 180), "c": (128, 128, 128), "ignore": (224, 224, 192)}
TABLE = np.zeros((256, 3), np.uint8)
TABLE[[0, 1, 2, 255]] = list(COLOURS.values())

Mask = np.ndarray[Any, np.dtype[np.uint8]]


def labels_of(index: int) -> Mask:
    """Return labels in which each class and 255 occur."""
    rng = np.random.default_rng(index)
    return rng.choice(np.array([0, 1, 2, 255], np.uint8), SIZE)


def folder(root: Path, count: int = 4) -> Path:
    for part in ("train", "val"):
        for at in range(count):
            for kind in ("images", "masks"):
                (root / part / kind).mkdir(parents=True, exist_ok=True)
            image_of(at).save(root / part / "images" / f"n{at}.png")
            Image.fromarray(labels_of(at)).save(root / part / "masks" / f"n{at}.png")
    return root


def image_of(index: int) -> Image.Image:
    rng = np.random.default_rng(100 + index)
    return Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def config(root: Path, **changes: object) -> FolderData:
    fields = {"root": root, "classes": CLASSES, "height": SIZE[0], "width": SIZE[1], "labelled": 2, "dev": 1}
    return FolderData.model_validate(fields | changes)


def read(data: FolderData) -> tuple[torch.Tensor, torch.Tensor]:
    reader = FolderReader(data)
    pairs = reader.training().pairs
    images, labels, _ = FileSource(reader.coding, pairs).fetch(range(len(pairs)))
    return images, labels


def paletted(values: Mask, table: Mask) -> Image.Image:
    picture = Image.fromarray(values)
    picture.putpalette(table.tobytes())
    return picture


def shuffled(values: Mask, index: int) -> Image.Image:
    """Return the colours of labels as a palette image whose indices are others in every file."""
    order = np.random.default_rng(index).permutation(256).astype(np.uint8)
    table = np.empty_like(TABLE)
    table[order] = TABLE
    return paletted(order[values], table)


def rewrite(root: Path, save: Any, part: str = "train") -> None:
    for at in range(4):
        picture = save(labels_of(at), at)
        picture.save(root / part / "masks" / f"n{at}.png")


CODINGS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (lambda m, at: Image.fromarray(m.astype(np.uint16)), {}),
    (lambda m, at: Image.merge("LA", (Image.fromarray(m), Image.new("L", SIZE[::-1], 255))), {}),
    (lambda m, at: paletted(m, TABLE), {}),
    (lambda m, at: Image.fromarray(TABLE[m]), {"palette": COLOURS}),
    (lambda m, at: Image.fromarray(TABLE[m]).convert("RGBA"), {"palette": COLOURS}),
    (lambda m, at: shuffled(m, at), {"palette": COLOURS}),
    (lambda m, at: Image.fromarray(m.astype(np.uint16) * 100), {
        "values": {0: "a", 100: "b", 200: "c"}, "ignore_values": [25500],
    }),
    (lambda m, at: Image.fromarray(np.array([9, 255, 30] + 252 * [0] + [7], np.uint8)[m]), {
        "values": {9: "a", 255: "b", 30: "c", 7: "ignore"},
    }),
)  # fmt: skip
"""How labels are saved, and the settings that read them."""
CODING_NAMES = ["16 bit", "grey and alpha", "palette", "rgb", "rgba", "palettes by colour", "16 bit values", "values"]
