"""Images and masks from a folder: decoded by threads, resized, checked, and kept in memory as uint8."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainers.config import IGNORE, FolderData
from trainers.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Files in `images` that are images, in any case; others are passed over."""

_THREADS = min(8, os.cpu_count() or 1)
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on broken files


class Pair(NamedTuple):
    """One image and, if there is one, its mask."""

    name: str
    image: Path
    mask: Path | None


class FolderSource:
    """Some pairs of a folder, each decoded when it is first fetched and then kept (4 bytes a pixel)."""

    def __init__(self, data: FolderData, pairs: Sequence[Pair]) -> None:
        self._data = data
        self._pairs = tuple(pairs)
        self._decoded = [False] * len(pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """File names without extension."""
        return tuple(pair.name for pair in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def fetch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images uint8 [N, 3, H, W] and labels uint8 [N, H, W]; an image without a mask is 255 throughout.

        Raises:
            DataError: an image or mask that is decoded now cannot be read or breaks a rule.
        """
        _in_threads(self._keep, sorted({index for index in indices if not self._decoded[index]}))
        images, labels = self._cache
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return images.index_select(0, chosen), labels.index_select(0, chosen)

    def check(self) -> None:
        """Decode everything and keep nothing.

        Raises:
            DataError: the first image or mask, in the order of the names, that cannot be read or breaks a rule.
        """
        _in_threads(self._try, range(len(self)))

    def _keep(self, index: int) -> None:
        image, label = decode(self._data, self._pairs[index])
        images, labels = self._cache
        images[index], labels[index] = torch.from_numpy(image), torch.from_numpy(label)
        self._decoded[index] = True

    def _try(self, index: int) -> None:
        decode(self._data, self._pairs[index])

    @cached_property
    def _cache(self) -> tuple[Tensor, Tensor]:
        # Memory is reserved here and taken only as images are written.
        height, width = self._data.image_shape
        shape = (len(self), height, width)
        return torch.empty(shape[0], 3, *shape[1:], dtype=torch.uint8), torch.empty(shape, dtype=torch.uint8)


def decode(data: FolderData, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read one pair: image uint8 [3, H, W] and labels uint8 [H, W], resized to (data.height, data.width).

    The image is resized bilinearly with antialiasing, the mask to the nearest pixel.

    Raises:
        DataError: a file cannot be decoded, or the mask is not one byte a pixel, of another size than its image, or
            holds a value that is neither a class nor in `ignore_values`.
    """
    size = (data.width, data.height)
    image = _open(pair.image).convert("RGB")
    pixels = np.array(image.resize(size, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    if pair.mask is None:
        return pixels, np.full(data.image_shape, IGNORE, dtype=np.uint8)
    mask = _open(pair.mask)
    if mask.mode not in ("L", "P"):
        raise DataError(
            f"a mask must be one byte a pixel (Pillow mode L or P), got mode {mask.mode} in {pair.mask}: "
            "save class indices, not colours"
        )
    if mask.size != image.size:
        raise DataError(
            f"a mask must have the size of its image ({_size(image)}), got {_size(mask)} in {pair.mask}: "
            f"correct it or {pair.image.name}"
        )
    labels = _to_labels(data, np.asarray(mask), pair.mask)
    return pixels, np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def list_pairs(data: FolderData, part: str) -> tuple[Pair, ...]:
    """Return the pairs of the folder `part` below the root, sorted by name; masks are looked up, nothing is read.

    Raises:
        DataError: a folder is missing, it holds no images, or two images share a name.
    """
    if not data.root.is_dir():
        raise DataError(f"data.root must be a folder, got {data.root}: correct the path")
    images = data.root / part / "images"
    if not images.is_dir():
        raise DataError(f"{images} must be a folder of images, got no such folder: create it or correct the path")
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(
            f"{images} must hold images ({', '.join(IMAGE_SUFFIXES)}), got none: add them or correct data.root"
        )
    masks_folder = data.root / part / "masks"
    masks = {path.stem: path for path in masks_folder.glob("*.png")}
    pairs: dict[str, Pair] = {}
    for path in files:
        if path.stem in pairs:
            first = pairs[path.stem].image.name
            raise DataError(f"names of images must be unique, got {first} and {path.name} in {images}: rename one")
        pairs[path.stem] = Pair(path.stem, path, masks.get(path.stem))
    return tuple(pairs[name] for name in sorted(pairs))


def require_masks(pairs: Iterable[Pair], role: str) -> None:
    """Refuse pairs without a mask where the mask is needed.

    Raises:
        DataError: names the first image without a mask.
    """
    for pair in pairs:
        if pair.mask is None:
            expected = pair.image.parent.parent / "masks" / f"{pair.name}.png"
            raise DataError(f"every {role} image must have a mask, got {pair.image} without one: add {expected}")


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} must be an image that can be decoded, got '{reason}': replace or remove it") from error


def _to_labels(data: FolderData, values: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: len(data.classes)] = np.arange(len(data.classes))
    unknown = np.ones(256, dtype=bool)
    unknown[: len(data.classes)] = False
    unknown[[value for value in data.ignore_values if 0 <= value < 256]] = False
    outside = unknown[values]
    if outside.any():
        found = np.unique(values[outside]).tolist()
        raise DataError(
            f"mask values must be classes (0 to {len(data.classes) - 1}) or in data.ignore_values "
            f"{list(data.ignore_values)}, got {', '.join(map(str, found[:5]))} in {path}: "
            "correct the mask, or add to data.classes or data.ignore_values"
        )
    return table[values]


def _in_threads(work: Callable[[int], None], indices: Sequence[int]) -> None:
    """Call work(index) for each; the first error in their order is raised and the rest is given up.

    One pool a call, so that no thread is left running for a fork to lose.
    """
    if indices:
        with ThreadPoolExecutor(min(_THREADS, len(indices))) as pool:
            deque(pool.map(work, indices), maxlen=0)


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
