"""Draws of the streams of a step: each one's strong augmentation, and the channels of features that it keeps.

Every number is drawn on the CPU for the global batch and then cut to the rank's images, as in `trainers.augment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.augment.maps import rank_share
from trainers.augment.pipeline import StrongDraws, draw_strong
from trainers.config import TrainConfig
from trainers.randomness import generator

Keep = tuple[Tensor, ...]
"""For each map between encoder and decoder, what its channels are multiplied by, float32 [N, C]: 0, 1 or 2."""


class StreamDraws(NamedTuple):
    """Of a rank's images, on its device."""

    strong: StrongDraws | None
    """None of a weak view."""
    keep: Keep | None
    """None where all channels are kept."""


def draw_streams(
    image: Tensor, channels: Sequence[int], config: TrainConfig, seed: int, step: int, rank: int, world_size: int
) -> tuple[StreamDraws, ...]:
    """Draw for a rank's images [N, 3, H, W], of which only the shape and the device are read.

    Args:
        image: This rank's; ranks hold equally many.
        channels: Of the maps between encoder and decoder; read where a stream does not keep all.
        config: Its active streams are drawn for, in their order.
        seed: Of the training run.
        step: Of training.
        rank: 0 to world_size - 1.
        world_size: Number of ranks that share the global batch.
    """
    total, drawn, complementary = len(image) * world_size, [], 0
    for name, stream in config.active_streams.items():
        purpose = "" if name == "first" else f".{name}"
        strong = None
        if stream.view == "strong":
            strong = draw_strong(image, config.strong_of(stream), seed, step, rank, world_size, purpose)
        keep = None
        if stream.features == "dropout":
            keep = draw_dropout(channels, total, generator(seed, f"features.{name}", step))
        elif stream.features == "complementary":
            keep = draw_complementary(channels, total, generator(seed, "features", step))[complementary]
            complementary += 1
        drawn.append(StreamDraws(strong, None if keep is None else rank_share(keep, rank, len(image), image.device)))
    return tuple(drawn)


def draw_dropout(channels: Sequence[int], count: int, draws: torch.Generator) -> Keep:
    """Draw 0 or 2 for each channel of each map of `count` images, as Dropout2d with p = 1/2 does."""
    return tuple(2.0 * (torch.rand(count, width, generator=draws) < 0.5) for width in channels)


def draw_complementary(channels: Sequence[int], count: int, draws: torch.Generator) -> tuple[Keep, Keep]:
    """Draw what two views of `count` images keep: m of 0 and 2, and 2 - m; half of the images, rounded down, keep all.

    Maps of one width, as a ViT's, have the same m, as in the published code; those of a pyramid one each.
    """
    shared = len(set(channels)) == 1
    maps = draw_dropout(channels[:1] if shared else channels, count, draws)
    whole = torch.randperm(count, generator=draws)[: count // 2]
    first = tuple(each.index_fill(0, whole, 1.0) for each in maps) * (len(channels) if shared else 1)
    return first, tuple(2.0 - each for each in first)
