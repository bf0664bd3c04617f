"""Channels of an image, a pixel at a time: by `colorsys` and by hand."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]
"""[3, H, W] in [0, 1]."""


def luminance(red: float, green: float, blue: float) -> float:
    """Of NTSC."""
    return 0.299 * red + 0.587 * green + 0.114 * blue


def lab(red: float, green: float, blue: float) -> tuple[float, ...]:
    """CIELAB of sRGB, with the white that (1, 1, 1) has."""

    def xyz(colour: tuple[float, float, float]) -> tuple[float, ...]:
        light = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
        rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
        return tuple(sum(weight * part for weight, part in zip(row, light, strict=True)) for row in rows)

    shares = [own / white for own, white in zip(xyz((red, green, blue)), xyz((1.0, 1.0, 1.0)), strict=True)]
    x, y, z = (math.cbrt(share) if share > 216 / 24389 else (24389 / 27 * share + 16) / 116 for share in shares)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def opponent(red: float, green: float, blue: float) -> tuple[float, ...]:
    """Red against green, yellow against blue, and their sum."""
    return (red - green) / math.sqrt(2), (red + green - 2 * blue) / math.sqrt(6), (red + green + blue) / math.sqrt(3)


def shares(red: float, green: float, blue: float) -> tuple[float, ...]:
    """Of each colour in the sum."""
    total = red + green + blue
    return (red / total, green / total, blue / total) if total else (1 / 3, 1 / 3, 1 / 3)


def yiq(red: float, green: float, blue: float) -> tuple[float, ...]:
    """As in NTSC's table of four digits."""
    return (
        luminance(red, green, blue),
        0.5959 * red - 0.2746 * green - 0.3213 * blue,
        0.2115 * red - 0.5227 * green + 0.3112 * blue,
    )


PIXELS: dict[str, Callable[[float, float, float], tuple[float, ...]]] = {
    "rgb": lambda *colour: colour, "yiq": yiq, "lab": lab, "hsv": colorsys.rgb_to_hsv, "opponent": opponent,
    "grey": lambda *colour: (luminance(*colour),), "normalised_rgb": shares,
    "lightness": lambda *colour: lab(*colour)[:1],
}  # fmt: skip
"""What is made of a colour."""


def channels(image: Image, name: str) -> Image:
    """Return the channels of a space, or those that a map adds, [C, H, W]."""
    _, height, width = image.shape
    if name in PIXELS:
        made = [[PIXELS[name](*map(float, image[:, y, x])) for x in range(width)] for y in range(height)]
        return np.moveaxis(np.array(made), -1, 0)
    grey = np.array([[luminance(*image[:, y, x]) for x in range(width)] for y in range(height)])

    def at(y: int, x: int) -> float:
        return float(grey[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    def gradient(y: int, x: int) -> tuple[float, ...]:
        return (math.hypot(at(y, x + 1) - at(y, x - 1), at(y + 1, x) - at(y - 1, x)) / 2,)

    def local_std(y: int, x: int) -> tuple[float, ...]:
        return (float(np.std([at(y + down, x + along) for down in range(-2, 3) for along in range(-2, 3)])),)

    def position(y: int, x: int) -> tuple[float, ...]:
        return 2 * y / (height - 1) - 1, 2 * x / (width - 1) - 1

    value = {"gradient": gradient, "local_std": local_std, "position": position}[name]
    return np.moveaxis(np.array([[value(y, x) for x in range(width)] for y in range(height)]), -1, 0)
