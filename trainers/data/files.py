"""Images and masks in files: decoded by threads, checked, and kept in memory as uint8 while it lasts."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainers.config import IGNORE
from trainers.data.cache import Decoded, ImageCache, process_cache
from trainers.data.source import Samples, padded_samples, uniform_samples
from trainers.errors import DataError

_THREADS = min(8, os.cpu_count() or 1)
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on broken files
_numbers = itertools.count()


class Pair(NamedTuple):
    """One image and its mask."""

    name: str
    image: Path
    mask: Path
    """Where the mask is, or would be."""
    has_mask: bool = True


class Coding(NamedTuple):
    """Meaning of the mask values of a data set."""

    read: Callable[[Path], NDArray[np.uint8]]
    """Reads a mask's values [H, W]."""
    labels: NDArray[np.uint8]
    """Label of each value, uint8 [256]: a class, or 255."""
    allowed: NDArray[np.bool_]
    """Which values may occur, bool [256]."""
    rule: str
    """Names them in a refusal."""
    shape: tuple[int, int] | None = None
    """Height and width that images and masks are resized to; none: they stay as they are."""


class FileSource:
    """Some pairs of a data set, each decoded when it is fetched and then kept while the cache has room.

    Images of one size that all fit are kept in one block of memory, which is reserved at the first fetch and taken only
    as images are written; else each is kept by itself.
    """

    def __init__(self, coding: Coding, pairs: Sequence[Pair], cache: ImageCache | None = None) -> None:
        self._coding = coding
        self._pairs = tuple(pairs)
        self._cache = cache
        self._lock = threading.Lock()
        self._number = next(_numbers)
        self._opened = False
        self._block: tuple[Tensor, Tensor] | None = None
        self._decoded = [False] * len(pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images, as lists of splits have them."""
        return tuple(pair.name for pair in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def fetch(self, indices: Sequence[int]) -> Samples:
        """Return the samples of `indices`; an image without a mask is 255 throughout.

        Raises:
            DataError: an image or mask that is decoded now cannot be read or breaks a rule.
            ConfigError: the limit of the cache is not a number.
        """
        cache = self._open()
        if self._block is None:
            return padded_samples(self._one_by_one(cache, indices))
        in_threads(self._write, sorted({index for index in indices if not self._decoded[index]}))
        return uniform_samples(*self._block, indices)

    def check(self) -> None:
        """Decode everything and keep nothing.

        Raises:
            DataError: the first image or mask, in the order of the names, that cannot be read or breaks a rule.
        """
        in_threads(lambda index: decode(self._coding, self._pairs[index]), range(len(self)))

    def _open(self) -> ImageCache:
        with self._lock:
            cache = self._cache = process_cache() if self._cache is None else self._cache
            if not self._opened:
                shape, reserved = self._coding.shape, 0
                if shape is not None and cache.reserve(4 * len(self) * shape[0] * shape[1]):
                    reserved = 4 * len(self) * shape[0] * shape[1]
                    images = torch.empty(len(self), 3, *shape, dtype=torch.uint8)
                    self._block = images, torch.empty(len(self), *shape, dtype=torch.uint8)
                weakref.finalize(self, cache.release, self._number, reserved)
                self._opened = True
            return cache

    def _write(self, index: int) -> None:
        assert self._block is not None  # noqa: S101  # only a source with a block writes
        images, labels = self._block
        images[index], labels[index] = decode(self._coding, self._pairs[index])
        self._decoded[index] = True

    def _one_by_one(self, cache: ImageCache, indices: Sequence[int]) -> list[Decoded]:
        decoded: dict[int, Decoded] = {}

        def read(index: int) -> None:
            decoded[index] = decode(self._coding, self._pairs[index])
            cache.put(self._number, index, decoded[index])

        for index in set(indices):
            kept = cache.get(self._number, index)
            if kept is not None:
                decoded[index] = kept
        in_threads(read, sorted(set(indices) - decoded.keys()))
        return [decoded[index] for index in indices]


def decode(coding: Coding, pair: Pair) -> Decoded:
    """Read one pair: image uint8 [3, H, W] and labels uint8 [H, W].

    Where the coding has a shape, the image is resized bilinearly with antialiasing, the mask to the nearest pixel.

    Raises:
        DataError: a file cannot be decoded, or the mask is of another size than its image, or holds a value that means
            nothing.
    """
    image = open_image(pair.image).convert("RGB")
    size = image.size if coding.shape is None else coding.shape[::-1]
    sized = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(sized)).permute(2, 0, 1).contiguous()
    if not pair.has_mask:
        return pixels, torch.full((size[1], size[0]), IGNORE, dtype=torch.uint8)
    return pixels, torch.from_numpy(_labels(coding, pair, image))


def classes_in(coding: Coding, pairs: Sequence[Pair]) -> dict[str, frozenset[int]]:
    """Return the classes that occur in the mask of each pair, as it is stored, by the pair's name.

    Raises:
        DataError: a mask cannot be read or breaks a rule.
    """
    classes: dict[str, frozenset[int]] = {}

    def read(index: int) -> None:
        pair = pairs[index]
        counts = np.bincount(_labels(coding, pair, _header(pair.image)).ravel(), minlength=256)
        classes[pair.name] = frozenset(np.flatnonzero(counts[:IGNORE]).tolist())

    in_threads(read, range(len(pairs)))
    return classes


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width from the head of a file.

    Raises:
        DataError: it is not an image.
    """
    width, height = _header(path).size
    return height, width


def require_masks(pairs: Iterable[Pair], role: str) -> None:
    """Refuse pairs without a mask where the mask is needed.

    Raises:
        DataError: names the first image without a mask.
    """
    for pair in pairs:
        if not pair.has_mask:
            raise DataError(f"every {role} image must have a mask, got {pair.image} without one: add {pair.mask}")


def open_image(path: Path) -> Image.Image:
    """Read an image.

    Raises:
        DataError: the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except _UNREADABLE as error:
        raise _undecodable(path, error) from error


def byte_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask of one byte a pixel: the values themselves, or the indices of a palette.

    Raises:
        DataError: the file cannot be decoded, or it holds colours.
    """
    mask = open_image(path)
    if mask.mode not in ("L", "P"):
        raise DataError(
            f"a mask must be one byte a pixel (Pillow mode L or P), got mode {mask.mode} in {path}: "
            "save class indices, not colours"
        )
    return np.asarray(mask)


def in_threads(work: Callable[[int], object], indices: Sequence[int]) -> None:
    """Call work(index) for each; the first error in their order is raised and the rest is given up.

    One pool a call, so that no thread is left running for a fork to lose.
    """
    if indices:
        with ThreadPoolExecutor(min(_THREADS, len(indices))) as pool:
            deque(pool.map(work, indices), maxlen=0)


def _labels(coding: Coding, pair: Pair, image: Image.Image) -> NDArray[np.uint8]:
    """Return a pair's labels as they are stored, uint8 [H, W]; of `image` only the size is looked at."""
    values = coding.read(pair.mask)
    if values.shape != (image.height, image.width):
        raise DataError(
            f"a mask must have the size of its image ({image.width} x {image.height}), got "
            f"{values.shape[1]} x {values.shape[0]} in {pair.mask}: correct it or {pair.image.name}"
        )
    outside = ~coding.allowed[values]
    if outside.any():
        values_outside = ", ".join(map(str, np.unique(values[outside]).tolist()[:5]))
        raise DataError(f"mask values must be {coding.rule.format(values=values_outside, path=pair.mask)}")
    labels = coding.labels[values]
    if coding.shape is None or labels.shape == coding.shape:
        return labels
    return np.array(Image.fromarray(labels).resize(coding.shape[::-1], Image.Resampling.NEAREST))


def _header(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image
    except _UNREADABLE as error:
        raise _undecodable(path, error) from error


def _undecodable(path: Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{path} must be an image that can be decoded, got '{reason}': replace or remove it")
