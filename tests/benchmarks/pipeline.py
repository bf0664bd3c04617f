"""Images per second from JPEG files on disk to a weakly augmented batch."""

from __future__ import annotations

import os
import time
from typing import NamedTuple
from unittest.mock import patch

import torch

from trainers.config import TrainConfig
from trainers.data.cache import LIMIT_VARIABLE, process_cache
from trainers.data.splits import open_splits
from trainers.loader import load_batch
from trainers.targets import StepContext


class Throughput(NamedTuple):
    """Images a second by the clock on the wall, with as many decoding threads as training uses."""

    decoded: float
    """Nothing is kept: every image is read, decoded and resized (the operating system may keep the files)."""
    cached: float
    """Every image was decoded before."""


def measure_throughput(config: TrainConfig, steps: int) -> Throughput:
    """Load the labelled and unlabelled images of that many steps."""
    with patch.dict(os.environ, {LIMIT_VARIABLE: "0"}):
        process_cache.cache_clear()
        decoded = _images_per_second(_with_splits_of_its_own(config, 1), steps)
    process_cache.cache_clear()
    fresh = _with_splits_of_its_own(config, 2)
    splits = open_splits(fresh.data)
    for source in (splits.labelled, splits.unlabelled):
        source.fetch(range(len(source)))
    return Throughput(decoded, _images_per_second(fresh, steps))


def _with_splits_of_its_own(config: TrainConfig, seed: int) -> TrainConfig:
    """Splits stay open in a process with their cache; another seed opens others."""
    return config.model_copy(update={"data": config.data.model_copy(update={"seed": seed})})


def _images_per_second(config: TrainConfig, steps: int) -> float:
    splits = open_splits(config.data)
    started = time.perf_counter()
    for step in range(steps):
        load_batch(splits, config, StepContext(config.seed, step), torch.device("cpu"))
    images = config.schedule.labelled_batch + config.schedule.unlabelled_batch
    return steps * images / (time.perf_counter() - started)
