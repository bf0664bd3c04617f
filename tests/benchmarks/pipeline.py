"""Images per second from JPEG files on disk to a weakly augmented batch."""

from __future__ import annotations

import os
import tempfile
import time
from typing import NamedTuple
from unittest.mock import patch

import torch

from trainers.config import TrainConfig
from trainers.data.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, node_cache
from trainers.data.splits import open_splits
from trainers.loader import load_batch
from trainers.targets import StepContext


class Throughput(NamedTuple):
    """Images a second by the clock on the wall, with as many decoding threads as training uses."""

    decoded: float
    """Nothing is kept: every image is read, decoded and resized (the operating system may keep the files)."""
    cached: float
    """Every image was decoded before, and is in the operating system's page cache."""


def measure_throughput(config: TrainConfig, steps: int) -> Throughput:
    """Load the labelled and unlabelled images of that many steps."""
    with patch.dict(os.environ, {LIMIT_VARIABLE: "0"}):
        node_cache.cache_clear()
        decoded = _images_per_second(config, steps)
    node_cache.cache_clear()
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {FOLDER_VARIABLE: folder}):
        splits = open_splits(config.data)
        for source in (splits.labelled, splits.unlabelled):
            source.fetch(range(len(source)))
        return Throughput(decoded, _images_per_second(config, steps))


def _images_per_second(config: TrainConfig, steps: int) -> float:
    splits = open_splits(config.data)
    started = time.perf_counter()
    for step in range(steps):
        load_batch(splits, config, StepContext(config.seed, step), torch.device("cpu"))
    images = config.schedule.labelled_batch + config.schedule.unlabelled_batch
    return steps * images / (time.perf_counter() - started)
