"""Images and masks in files: decoded by threads, checked, and kept as uint8 for all processes of the node."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainers.config import IGNORE, Fit
from trainers.config.base import SMALLEST_VIEW
from trainers.data.cache import Decoded, NodeCache, node_cache
from trainers.data.source import Samples, padded_samples
from trainers.data.threads import in_threads
from trainers.errors import DataError

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on broken files
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
ORIENTATION = 0x0112
"""EXIF tag of the orientation in which an image is shown."""
MOST_STRETCHED = 0.05
"""An image may be resized to sides whose ratio differs from its own by this share, which rounded sizes need."""
VALUES = 2**16
"""Mask values that can be read, at most."""

Values = NDArray[np.uint8] | NDArray[np.uint16]


class Pair(NamedTuple):
    """One image and its mask."""

    name: str
    image: Path
    mask: Path
    """Where the mask is, or would be."""
    has_mask: bool = True


class Coding(NamedTuple):
    """Meaning of the mask values of a data set."""

    read: Callable[[Path], Values]
    """Reads a mask's values [H, W]."""
    labels: NDArray[np.uint8]
    """Label of each value that can be read, uint8 [256] or [65536]: a class, or 255."""
    allowed: NDArray[np.bool_]
    """Which values may occur, bool of the same length."""
    rule: str
    """Names them in a refusal."""
    shape: tuple[int, int] | None = None
    """Height and width that images and masks are resized to; none: they stay as they are."""
    fit: Fit = "stretch"
    """How an image of another aspect ratio comes to that shape."""
    oriented: bool = False
    """Whether images are turned as their EXIF orientation says. Published masks fit the pixels as they are stored."""

    @property
    def identity(self) -> str:
        """Text that tells this coding from those that decode otherwise, in all processes."""
        name = getattr(self.read, "__qualname__", "<")
        read = repr(self.read) if "<" in name else f"{self.read.__module__}.{name}"  # an instance, or a closure
        tables = hashlib.blake2b(self.labels.tobytes() + self.allowed.tobytes()).hexdigest()
        return f"{read} {tables} {self.shape} {self.fit} {self.oriented}"


class Tally:
    """Pixels of each mask value, counted by several threads."""

    def __init__(self) -> None:
        self.pixels: NDArray[np.int64] = np.zeros(VALUES, np.int64)
        self._lock = threading.Lock()

    def add(self, values: Values) -> None:
        """Count the values of a mask [H, W]."""
        counts = np.bincount(values.ravel(), minlength=VALUES)
        with self._lock:
            self.pixels += counts


class FileSource:
    """Some pairs of a data set, each decoded when it is fetched and then kept while the cache has room."""

    def __init__(self, coding: Coding, pairs: Sequence[Pair], cache: NodeCache | None = None) -> None:
        """Take pairs and a cache; without one it is that of the process."""
        self._coding = coding
        self._pairs = tuple(pairs)
        self._cache = cache
        self._stamps: dict[int, str] = {}

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
        decoded = self._read(indices)
        return padded_samples([decoded[index] for index in indices], self._coding.shape or (0, 0))

    def count_labels(self) -> NDArray[np.int64]:
        """Return how many pixels of all masks, as they are stored, have each label, int64 [256]; no image is read.

        Raises:
            DataError: a mask cannot be read.
        """
        pixels = count_values(self._coding, self._pairs).pixels[: len(self._coding.labels)]
        counts: NDArray[np.int64] = np.zeros(IGNORE + 1, np.int64)
        np.add.at(counts, self._coding.labels, pixels)
        return counts

    def check(self, tally: Tally | None = None) -> None:
        """Decode everything and keep nothing; the mask values are counted in `tally`.

        Raises:
            DataError: the first image or mask, in the order of the names, that cannot be read or breaks a rule.
        """
        in_threads(lambda index: decode(self._coding, self._pairs[index], tally), range(len(self)))

    def _read(self, indices: Sequence[int]) -> dict[int, Decoded]:
        """Return what is kept of these images, and decode the others."""
        cache = node_cache(self._coding.identity) if self._cache is None else self._cache
        names = {index: "" if cache is None else self._name(index) for index in indices}

        def look(index: int) -> bool:
            kept = cache.get(names[index]) if cache is not None and names[index] else None
            if kept is not None:
                decoded[index] = kept
            return kept is not None

        def read(index: int) -> None:
            if look(index):  # another process has decoded it meanwhile
                return
            decoded[index] = decode(self._coding, self._pairs[index])
            if cache is not None and names[index]:
                cache.put(names[index], decoded[index])

        decoded = dict[int, Decoded]()
        missing = [index for index in sorted(names) if not look(index)]
        turn = os.getpid() % max(1, len(missing))  # gangs may want the same images at once: each begins elsewhere
        in_threads(read, missing[turn:] + missing[:turn])
        return decoded

    def _name(self, index: int) -> str:
        """Return what names the files of an image and its mask as they were at the first fetch; "" where one lacks."""
        if index not in self._stamps:
            pair = self._pairs[index]
            paths = [pair.image, pair.mask] if pair.has_mask else [pair.image]
            try:
                files = [(str(path.absolute()), path.stat()) for path in paths]
            except OSError:
                return ""
            stamps = [(path, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns) for path, file in files]
            self._stamps[index] = hashlib.blake2b(repr(stamps).encode(), digest_size=16).hexdigest()
        return self._stamps[index]


def decode(coding: Coding, pair: Pair, tally: Tally | None = None) -> Decoded:
    """Read one pair: image uint8 [3, H, W] and labels uint8 [H, W]; the mask values are counted in `tally`.

    Where the coding has a shape, the image is resized bilinearly with antialiasing, the mask to the nearest pixel.

    Raises:
        DataError: a file cannot be decoded, the mask is of another size than its image or holds a value that means
            nothing, or the image's aspect ratio is not that of the shape and `fit` does not say what to do.
    """
    import torch

    image = open_image(pair.image, oriented=coding.oriented).convert("RGB")
    height, width = fitted(coding, pair.image, (image.height, image.width))
    sized = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(sized)).permute(2, 0, 1).contiguous()
    if not pair.has_mask:
        return pixels, torch.full((height, width), IGNORE, dtype=torch.uint8)
    return pixels, torch.from_numpy(_labels(coding, pair, (image.height, image.width), tally))


def fitted(coding: Coding, path: Path, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width that an image of height and width `size` is resized to.

    Raises:
        DataError: `fit` is `exact`, and the aspect ratio would change by more than `MOST_STRETCHED`.
    """
    if coding.shape is None:
        return size
    if coding.fit == "pad":
        return fit_within(size, coding.shape)
    (height, width), (new_height, new_width) = size, coding.shape
    if coding.fit == "exact" and abs(math.log(width / height * new_height / new_width)) > MOST_STRETCHED:
        raise DataError(
            f"images must have the aspect ratio of data.height x data.width ({new_height} x {new_width}), got "
            f"{height} x {width} in {path}: set data.fit=pad to keep it and fill up with ignored pixels, "
            "data.fit=stretch to squash images, or another height or width"
        )
    return coding.shape


def fit_within(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Return the largest height and width within `shape` that have the aspect ratio of `size`, 16 or more each."""
    scale = min(most / side for most, side in zip(shape, size, strict=True))
    height, width = (max(SMALLEST_VIEW, round(scale * side)) for side in size)
    return height, width


def classes_in(coding: Coding, pairs: Sequence[Pair]) -> dict[str, frozenset[int]]:
    """Return the classes that occur in the mask of each pair, as it is stored, by the pair's name.

    Raises:
        DataError: a mask cannot be read or breaks a rule.
    """
    classes: dict[str, frozenset[int]] = {}

    def read(index: int) -> None:
        pair = pairs[index]
        size = image_size(pair.image, oriented=coding.oriented)
        counts = np.bincount(_labels(coding, pair, size).ravel(), minlength=256)
        classes[pair.name] = frozenset(np.flatnonzero(counts[:IGNORE]).tolist())

    in_threads(read, range(len(pairs)))
    return classes


def count_values(coding: Coding, pairs: Sequence[Pair]) -> Tally:
    """Return the pixels of each value in the masks that there are, also of values that may not occur.

    Raises:
        DataError: a mask cannot be read.
    """
    tally, masks = Tally(), [pair.mask for pair in pairs if pair.has_mask]
    in_threads(lambda index: tally.add(coding.read(masks[index])), range(len(masks)))
    return tally


def image_size(path: Path, *, oriented: bool = False) -> tuple[int, int]:
    """Return height and width from the head of a file, where `oriented` as EXIF turns it.

    Raises:
        DataError: it is not an image.
    """
    try:
        with Image.open(path) as image:
            turned = oriented and image.getexif().get(ORIENTATION) in _TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except _UNREADABLE as error:
        raise _undecodable(path, error) from error


def require_masks(pairs: Iterable[Pair], role: str) -> None:
    """Refuse pairs without a mask where the mask is needed.

    Raises:
        DataError: names the first image without a mask.
    """
    for pair in pairs:
        if not pair.has_mask:
            raise DataError(f"every {role} image must have a mask, got {pair.image} without one: add {pair.mask}")


def open_image(path: Path, *, oriented: bool = False) -> Image.Image:
    """Read an image, where `oriented` turned as its EXIF orientation says.

    Raises:
        DataError: the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image) if oriented else image
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


def _labels(coding: Coding, pair: Pair, size: tuple[int, int], tally: Tally | None = None) -> NDArray[np.uint8]:
    """Return a pair's labels, uint8 [H, W]; `size` is the height and width of its image."""
    values = coding.read(pair.mask)
    if values.shape != size:
        turned = " (turned as EXIF says)" if coding.oriented and values.shape == size[::-1] else ""
        raise DataError(
            f"a mask must have the size of its image ({size[1]} x {size[0]}){turned}, got "
            f"{values.shape[1]} x {values.shape[0]} in {pair.mask}: correct it or {pair.image.name}"
        )
    if tally is not None:
        tally.add(values)
    outside = ~coding.allowed[values]
    if outside.any():
        values_outside = ", ".join(map(str, np.unique(values[outside]).tolist()[:5]))
        raise DataError(f"mask values must be {coding.rule.format(values=values_outside, path=pair.mask)}")
    labels = coding.labels[values]
    shape = fitted(coding, pair.image, size)
    if labels.shape == shape:
        return labels
    return np.array(Image.fromarray(labels).resize(shape[::-1], Image.Resampling.NEAREST))


def _undecodable(path: Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{path} must be an image that can be decoded, got '{reason}': replace or remove it")
