"""Weak and strong augmentation of a rank's share of a batch.

Every number is drawn on the CPU for the global batch and then cut to the rank's images, so two ranks on halves of a
batch do what one process does on the whole. Nothing here waits for the device, and no shape depends on the images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.augment.geometry import GeometryParams, apply_geometry, draw_geometry, moves_nothing
from trainers.augment.maps import IMAGE, Maps, rank_share
from trainers.augment.mixing import MixParams, apply_mix, draw_mix
from trainers.augment.photometric import BlurParams, JitterParams, apply_blur, apply_jitter, draw_blur, draw_jitter
from trainers.config import StrongAugmentConfig, WeakAugmentConfig
from trainers.randomness import generator


@torch.no_grad()
def weak_augment(
    maps: Maps,
    config: WeakAugmentConfig,
    seed: int,
    purpose: str,
    step: int,
    rank: int,
    world_size: int,
    sizes: Tensor | None = None,
) -> Maps:
    """Return the maps after random magnification, crop and flip.

    Args:
        maps: This rank's images and their maps, see `trainers.augment.maps`; ranks hold equally many.
        config: What is drawn; `config.crop` is the size of the result, else the size stays.
        seed: Of the training run.
        purpose: Tells batches of one step apart, such as "labelled" and "unlabelled".
        step: Of training.
        rank: 0 to world_size - 1.
        world_size: Number of ranks that share the global batch.
        sizes: Height and width of each image, float32 [N, 2], where the images are padded; see `apply_geometry`.
    """
    size = _size(maps)
    out_size = config.crop or size
    if sizes is None and moves_nothing(config, size, out_size):
        return maps
    draws = generator(seed, f"augment.weak.{purpose}", step)
    count = len(maps[IMAGE])
    geometry = draw_geometry(config, count * world_size, draws)
    return apply_geometry(maps, _geometry(geometry, maps, rank), out_size, sizes)


@torch.no_grad()
def strong_augment(maps: Maps, config: StrongAugmentConfig, seed: int, step: int, rank: int, world_size: int) -> Maps:
    """Return the maps after geometry, colour jitter, blur and mixing, in this order; the size stays.

    Mixing pairs images of this rank, which is the same as pairing in the global batch where a rank's share is even.

    Args:
        maps: This rank's images and their maps, see `trainers.augment.maps`; ranks hold equally many.
        config: What is drawn.
        seed: Of the training run.
        step: Of training.
        rank: 0 to world_size - 1.
        world_size: Number of ranks that share the global batch.
    """
    count, device, size = len(maps[IMAGE]), maps[IMAGE].device, _size(maps)
    total = count * world_size
    # All is drawn, used or not: switching one part off leaves the others' numbers as they were.
    draws = generator(seed, "augment.strong", step)
    geometry = draw_geometry(config, total, draws)
    jitter = draw_jitter(config, total, draws)
    blur = draw_blur(config, total, draws)
    mix = draw_mix(config, total, draws)

    if not moves_nothing(config, size, size):
        maps = apply_geometry(maps, _geometry(geometry, maps, rank), size)
    image = maps[IMAGE]
    if config.jitter > 0:
        image = apply_jitter(image, JitterParams._make(rank_share(jitter, rank, count, device)))
    if config.blur > 0:
        image = apply_blur(image, BlurParams._make(rank_share(blur, rank, count, device)), config.blur_sigma[1])
    maps = maps | {IMAGE: image}
    if config.mix != "none" and config.mix_probability > 0:
        maps = apply_mix(maps, MixParams._make(rank_share(mix, rank, count, device)), config.mix)
    return maps


def _size(maps: Maps) -> tuple[int, int]:
    height, width = maps[IMAGE].shape[-2:]
    return height, width


def _geometry(params: GeometryParams, maps: Maps, rank: int) -> GeometryParams:
    return GeometryParams._make(rank_share(params, rank, len(maps[IMAGE]), maps[IMAGE].device))
