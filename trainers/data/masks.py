"""Mask files of a user's folder: class indices in any grey format, or colours that a palette names."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainers.data.files import VALUES, Values, open_image
from trainers.errors import DataError

Colour = tuple[int, int, int]
SHOWN = 5
"""Colours that a refusal names, at most."""
_INDICES = ("L", "1", "I", "I;16", "I;16B", "I;16L")
BY_COLOUR = "data.palette={NAME: [R, G, B], ...}"


class IndexMasks:
    """Reads values [H, W] of masks of 1, 8 or 16 bits a pixel, or indices of a palette.

    Indices mean the same in all files only where the palettes agree, so one that differs from an earlier file's is
    refused, and one of greys, too, whose indices are not what they show. What was seen is kept between calls.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._palettes: list[tuple[bytes, Path]] = []
        self._colours: dict[int, tuple[Colour, Path]] = {}
        self._indices: dict[Colour, tuple[int, bytes, Path]] = {}

    def __repr__(self) -> str:
        return "IndexMasks()"  # the same in all processes

    def __call__(self, path: Path) -> Values:
        """Read a mask.

        Raises:
            DataError: the file cannot be decoded, or it holds colours.
        """
        mask = _opaque(open_image(path, oriented=True), path)
        if mask.mode == "P":
            self._require_one_palette(mask, path)
        elif mask.mode not in _INDICES:
            rgb = mask.mode == "RGB"
            found = f" with {_words(np.unique(np.asarray(mask).reshape(-1, 3), axis=0))}" if rgb else ""
            raise DataError(
                f"a mask must hold class indices, or data.palette must say what its colours mean, got mode {mask.mode}"
                f"{found} in {path}: set {BY_COLOUR}"
            )
        values = np.asarray(mask)
        if values.dtype in (np.uint8, np.uint16):
            return values
        if values.min() < 0 or values.max() >= VALUES:
            raise DataError(f"mask values must be 0 to {VALUES - 1}, got {values.max()} in {path}: correct the mask")
        return values.astype(np.uint16)

    def _require_one_palette(self, mask: Image.Image, path: Path) -> None:
        stored = bytes(mask.getpalette("RGB") or ())
        table = np.frombuffer(stored, np.uint8).reshape(-1, 3)
        used = [index for index, pixels in enumerate(mask.histogram()[: len(table)]) if pixels]
        greys = bool((table == table[:, :1]).all())
        if greys and any(table[index, 0] != index for index in used):
            index = next(index for index in used if table[index, 0] != index)
            raise DataError(
                f"a mask's palette must show colours, or each index as the grey of its value, got grey "
                f"{table[index, 0]} for index {index} in {path}: set {BY_COLOUR} (its greys are [g, g, g]), or save "
                "the mask without a palette"
            )
        with self._lock:
            for index in used:
                colour: Colour = tuple(table[index].tolist())
                other, first = self._colours.setdefault(index, (colour, path))
                if other != colour:
                    raise _differ(path, first, f"{list(colour)} for index {index}, there {list(other)}")
                there, palette, first = self._indices.setdefault(colour, (index, stored, path))
                shared = min(len(palette), len(stored))
                if there != index and palette[:shared] != stored[:shared]:
                    raise _differ(path, first, f"{list(colour)} for index {index}, there it is {there}")


class ColourMasks:
    """Reads masks of colours, in any format: the label of each pixel's colour, uint8 [H, W]."""

    def __init__(self, labels: Mapping[Colour, int]) -> None:
        codes = {red << 16 | green << 8 | blue: label for (red, green, blue), label in labels.items()}
        self._codes = np.array(sorted(codes), np.int32)
        self._labels = np.array([codes[code] for code in sorted(codes)], np.uint8)

    def __repr__(self) -> str:
        return f"ColourMasks({dict(zip(self._codes.tolist(), self._labels.tolist(), strict=True))})"

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Read a mask.

        Raises:
            DataError: the file cannot be decoded, or it holds a colour without a label.
        """
        pixels = np.asarray(colour_mask(path))
        codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        at = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        unknown = self._codes[at] != codes
        if unknown.any():
            raise DataError(
                f"colours of masks must be in data.palette, got {_words(np.unique(pixels[unknown], axis=0))} in "
                f"{path}: add them (as ignore, where they mean no label), or save masks without loss or smoothing"
            )
        labels: NDArray[np.uint8] = self._labels[at]
        return labels


def colour_mask(path: Path) -> Image.Image:
    """Read a mask of 1 or 8 bits, a palette or colours as mode RGB.

    Raises:
        DataError: the file cannot be decoded, is not opaque, or holds no colours of 8 bits a channel.
    """
    mask = _opaque(open_image(path, oriented=True), path)
    if mask.mode not in ("1", "L", "P", "RGB"):
        raise DataError(f"a mask of colours must have 8 bits a channel, got mode {mask.mode} in {path}: save it as RGB")
    return mask.convert("RGB")


def _opaque(mask: Image.Image, path: Path) -> Image.Image:
    """Return a mask without its alpha channel, where it has one."""
    if mask.mode not in ("LA", "RGBA", "PA"):
        return mask
    if mask.getchannel("A").getextrema() != (255, 255):
        raise DataError(f"a mask must be opaque, got transparent pixels in {path}: save it without transparency")
    return mask.getchannel("L") if mask.mode == "LA" else mask.convert("RGB")


def _words(colours: NDArray[np.uint8]) -> str:
    named = ", ".join(map(str, colours[:SHOWN].tolist()))
    return f"{named} and {len(colours) - SHOWN} more" if len(colours) > SHOWN else named


def _differ(path: Path, first: Path, what: str) -> DataError:
    return DataError(
        f"palettes of masks must agree for indices to be classes, got {what}, in {path} and {first}: set {BY_COLOUR}"
    )
