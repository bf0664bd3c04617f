"""How well single channels of the input tell the classes apart, on labelled pixels, before any training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.colour import ADDED, CHANNELS
from trainers.config import IGNORE
from trainers.config.model import InputConfig
from trainers.data.source import ImageSource
from trainers.errors import DataError
from trainers.models.heads import Normalise

MOST_PIXELS = 500_000
"""Labelled pixels that are looked at, at most; as many of each image."""
BINS = 64
"""Equally frequent intervals of a channel, between which its mutual information does not look."""
ROUNDING = 1e-3
"""Standard deviations that count as none: the colour of a grey is rounding, which would tell its brightness."""


class Separation(NamedTuple):
    """What one channel says of the class of its pixel."""

    channel: str
    settings: tuple[str, ...]
    """Words of `model.input` that it comes with: `space=yiq`, `add=gradient`."""
    fisher: float
    """Variance between the classes' means by the mean variance within a class."""
    information: float
    """Mutual information with the class, bits."""


class Channels(NamedTuple):
    """Channels, the most telling first, and what they were measured on."""

    channels: tuple[Separation, ...]
    entropy: float
    """Of the classes, bits: the most that a channel could say."""
    pixels: int
    images: int


def measure_channels(source: ImageSource, num_classes: int, done: Callable[[], None] = lambda: None) -> Channels:
    """Measure all channels of `CHANNELS` on the labelled pixels of all images, as they are stored.

    Where these are more than `MOST_PIXELS`, as many of each image are drawn, the same ones each time.

    Args:
        source: Of the labelled images.
        num_classes: K.
        done: Called after each image.

    Raises:
        DataError: no pixel has a label, or an image cannot be read.
    """
    draws, most = np.random.default_rng(0), max(1, MOST_PIXELS // max(1, len(source)))
    values, labels = [], []
    for index in range(len(source)):
        (image,), (label,), (size,) = source.fetch([index])
        height, width = size.tolist()
        label = label[:height, :width].numpy().ravel()
        labelled = np.flatnonzero(label != IGNORE)
        if len(labelled) > most:
            labelled = draws.choice(labelled, most, replace=False)
        maps = _all_channels(image[None, :, :height, :width].float() / 255)
        values.append(maps.reshape(len(maps), -1)[:, labelled])
        labels.append(label[labelled])
        done()
    joined, classes = np.concatenate(values, 1), np.concatenate(labels).astype(np.int64)
    if not len(classes):
        raise DataError("labelled images must have a labelled pixel, got none: label some, or change data.labelled")
    shares = np.bincount(classes, minlength=num_classes) / len(classes)
    measured = [
        Separation(name, tuple(words), fisher_ratio(row, classes), mutual_information(row, classes))
        for (name, words), row in zip(settings_of_channels().items(), joined, strict=True)
    ]
    measured.sort(key=lambda channel: -channel.information)
    return Channels(tuple(measured), _entropy(shares), len(classes), len(source))


def settings_of_channels() -> dict[str, list[str]]:
    """Return all channels there are, and the words of `model.input` that each comes with."""
    settings: dict[str, list[str]] = {}
    for part, names in CHANNELS.items():
        for name in names:
            settings.setdefault(name, []).append(f"{'add' if part in ADDED else 'space'}={part}")
    return settings


def fisher_ratio(values: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    """Return the variance between classes by that within them, weighted by pixels; 0 for a channel without variance.

    Fisher, "The use of multiple measurements in taxonomic problems", 1936, of one measurement.

    Args:
        values: [P], of the pixels.
        classes: [P], from 0 on.
    """
    if np.ptp(values) == 0:
        return 0.0
    counts = np.bincount(classes)
    total = values - values.mean()
    means = np.bincount(classes, total) / np.maximum(counts, 1)
    between = float((counts * means**2).sum())
    within = float(((total - means[classes]) ** 2).sum())
    return between / max(within, 1e-9 * between, np.finfo(float).tiny)  # finite, as JSON has no infinity


def mutual_information(values: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    """Return the mutual information of a channel in `BINS` equally frequent intervals with the class, in bits.

    Any increasing function of a channel has the same. With P pixels and K classes it is too high by some
    (BINS - 1) (K - 1) / (2 P ln 2).

    Args:
        values: [P], of the pixels.
        classes: [P], from 0 on.
    """
    bins = np.searchsorted(np.quantile(values, np.arange(1, BINS) / BINS), values, side="right")
    joint = np.bincount(bins * (classes.max() + 1) + classes, minlength=BINS * (classes.max() + 1)).reshape(BINS, -1)
    shares: NDArray[np.float64] = joint / len(values)
    return max(0.0, _entropy(shares.sum(0)) + _entropy(shares.sum(1)) - _entropy(shares.ravel()))


def _entropy(shares: NDArray[np.float64]) -> float:
    there = shares[shares > 0]
    return -math.fsum(there * np.log2(there)) + 0.0


def _all_channels(images: Tensor) -> NDArray[np.float64]:
    """Return each channel once, [C, H, W] of one image [1, 3, H, W], standardised as for a network and rounded."""
    maps: dict[str, Tensor] = {}
    for part, names in CHANNELS.items():
        config = InputConfig.model_validate({"add": [part]} if part in ADDED else {"space": part})
        maps |= dict(zip(names, Normalise(config)(images)[0, -len(names) :], strict=True))
    stacked = torch.stack([*maps.values()]).double()
    rounded: NDArray[np.float64] = ((stacked / ROUNDING).round() * ROUNDING).numpy()
    return rounded
