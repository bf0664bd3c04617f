"""From image sources to a rank's batch on its device."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.augment.pipeline import weak_augment
from trainers.config import TrainConfig
from trainers.data.sampler import batch_indices, rank_slice
from trainers.data.source import ImageSource
from trainers.data.splits import Splits
from trainers.errors import ConfigError
from trainers.step import Batch, Place


def load_batch(splits: Splits, config: TrainConfig, place: Place, device: torch.device) -> Batch:
    """Return this rank's share of the global batch of a step, weakly augmented: a pure function of its arguments."""
    schedule = config.schedule
    images, labels = _load(splits.labelled, schedule.labelled_batch, "labelled", config, place, device)
    unlabelled = None
    if config.uses_unlabelled:
        unlabelled, _ = _load(splits.unlabelled, schedule.unlabelled_batch, "unlabelled", config, place, device)
    return Batch(images, labels, unlabelled)


def check_batches(config: TrainConfig, world_size: int) -> None:
    """Refuse global batches that the ranks cannot share evenly.

    Raises:
        ConfigError: a batch is not a multiple of the number of ranks.
    """
    for name in ("labelled_batch", "unlabelled_batch"):
        batch = getattr(config.schedule, name)
        if batch % world_size:
            raise ConfigError(
                f"schedule.{name} is shared by all workers and must be a multiple of their number, got {batch} "
                f"for {world_size} workers: set it to {-(-batch // world_size) * world_size} or change the workers"
            )


def to_images(images: Tensor, device: torch.device) -> Tensor:
    """Move stored images [N, 3, H, W] uint8 to the device, as float32 in [0, 1] and channels_last."""
    if device.type == "cuda":
        images = images.pin_memory()
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).div_(255.0)


def _load(
    source: ImageSource, batch: int, purpose: str, config: TrainConfig, place: Place, device: torch.device
) -> tuple[Tensor, Tensor]:
    everyone = batch_indices(len(source), batch, place.seed, purpose, place.step)
    images, masks = source.fetch(rank_slice(everyone, place.rank, place.world_size))
    maps = {"image": to_images(images, device), "label": masks.to(device, torch.int64, non_blocking=True)}
    maps = weak_augment(
        maps, config.augment.weak, place.seed, purpose, place.step, rank=place.rank, world_size=place.world_size
    )
    return maps["image"].contiguous(memory_format=torch.channels_last), maps["label"]
