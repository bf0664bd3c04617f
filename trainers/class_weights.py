"""Weights of the classes in L_s, counted from the labelled training images: `loss.class_weights=auto`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainers.config import IGNORE, TrainConfig
from trainers.config.data import AnyData
from trainers.data.files import FileSource
from trainers.data.splits import open_splits


def with_even_weights(config: TrainConfig) -> TrainConfig:
    """Return the config with ones for `loss.class_weights=auto`, for what does not depend on the numbers."""
    return _with_weights(config, (1.0,) * config.num_classes) if config.loss.class_weights == "auto" else config


def with_counted_weights(config: TrainConfig) -> TrainConfig:
    """Return the config with numbers for `loss.class_weights=auto`; any other as it is.

    Its hash is another one: states and records are those of the config that was given. Only the masks of the labelled
    images are read, as they are stored.

    Raises:
        DataError: the labelled images cannot be read.
    """
    return _with_weights(config, _counted(config.data)) if config.loss.class_weights == "auto" else config


def balanced_weights(pixels: NDArray[np.int64]) -> tuple[float, ...]:
    """Return the square root of the median class's pixels by each class's own, [K].

    The median frequency balancing of Eigen and Fergus (ICCV 2015), whose weights are the same without the root; the
    root keeps a rare class from dominating a small batch. A class without pixels has no part in the median and weighs
    1, which nothing reads.

    Args:
        pixels: Of each class, int64 [K].
    """
    occurs = pixels > 0
    if not occurs.any():
        return (1.0,) * len(pixels)
    weights = np.sqrt(np.median(pixels[occurs]) / np.where(occurs, pixels, 1))
    return tuple(np.where(occurs, weights, 1.0).tolist())


def _with_weights(config: TrainConfig, weights: tuple[float, ...]) -> TrainConfig:
    return config.model_copy(update={"loss": config.loss.model_copy(update={"class_weights": weights})})


@lru_cache(maxsize=4)  # trials of one process share their data
def _counted(data: AnyData) -> tuple[float, ...]:
    source = open_splits(data).labelled
    if isinstance(source, FileSource):
        pixels = source.count_labels()
    else:
        pixels = np.bincount(source.fetch(range(len(source))).labels.numpy().ravel(), minlength=IGNORE + 1)
    return balanced_weights(pixels[: len(data.classes)])
