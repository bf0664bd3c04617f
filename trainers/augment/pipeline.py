"""Weak and strong augmentation of a rank's share of a batch.

Every number is drawn on the CPU for the global batch and then cut to the rank's images, so two ranks on halves of a
batch do what one process does on the whole. Nothing here waits for the device, and no shape depends on the images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainers.augment.geometry import GeometryParams, apply_flip, apply_geometry, draw_geometry, moves_nothing
from trainers.augment.maps import IMAGE, Draws, Maps, rank_share
from trainers.augment.mixing import MixParams, apply_mix, draw_mix
from trainers.augment.photometric import (
    BlurParams,
    GreyParams,
    JitterParams,
    apply_blur,
    apply_grey,
    apply_jitter,
    draw_blur,
    draw_grey,
    draw_jitter,
)
from trainers.config import (
    GeometryConfig,
    LabelledAugmentConfig,
    PhotometricConfig,
    StrongAugmentConfig,
    WeakAugmentConfig,
)
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
    draws = generator(seed, f"augment.weak.{purpose}", step)
    geometry = _share(draw_geometry(config, len(maps[IMAGE]) * world_size, draws), maps, rank)
    return _move(maps, config, geometry, config.crop or _size(maps), sizes)


@torch.no_grad()
def labelled_augment(
    maps: Maps,
    config: LabelledAugmentConfig,
    crop: tuple[int, int] | None,
    seed: int,
    step: int,
    rank: int,
    world_size: int,
    sizes: Tensor | None = None,
) -> Maps:
    """Return labelled images and their maps after the geometry that weak augmentation draws for them, and recoloured.

    Args:
        maps: As in `weak_augment`.
        config: What is drawn.
        crop: Height and width of the result; none: the size stays.
        seed: Of the training run.
        step: Of training.
        rank: 0 to world_size - 1.
        world_size: Number of ranks that share the global batch.
        sizes: As in `weak_augment`.
    """
    draws, total = generator(seed, "augment.weak.labelled", step), len(maps[IMAGE]) * world_size
    drawn = (
        draw_geometry(config, total, draws), draw_jitter(config, total, draws), draw_blur(config, total, draws),
        draw_grey(config, total, draws),
    )  # fmt: skip
    geometry, jitter, blur, grey = _share(drawn, maps, rank)
    return _recolour(_move(maps, config, geometry, crop or _size(maps), sizes), config, jitter, blur, grey)


class StrongDraws(NamedTuple):
    """Parameters of a rank's images, on its device."""

    geometry: GeometryParams
    jitter: JitterParams
    blur: BlurParams
    mix: MixParams
    grey: GreyParams


@torch.no_grad()
def strong_augment(
    maps: Maps,
    config: StrongAugmentConfig,
    seed: int,
    step: int,
    rank: int,
    world_size: int,
    purpose: str = "",
) -> Maps:
    """Return the maps after geometry, recolouring and mixing, in the order of the config; the size stays.

    Mixing pairs images of this rank, which is the same as pairing in the global batch where a rank's share is even.

    Args:
        maps: This rank's images and their maps, see `trainers.augment.maps`; ranks hold equally many.
        config: What is drawn.
        seed: Of the training run.
        step: Of training.
        rank: 0 to world_size - 1.
        world_size: Number of ranks that share the global batch.
        purpose: Tells views of one batch apart, each with draws of its own.
    """
    return apply_strong(maps, config, draw_strong(maps[IMAGE], config, seed, step, rank, world_size, purpose))


@torch.no_grad()
def apply_strong(maps: Maps, config: StrongAugmentConfig, draws: StrongDraws) -> Maps:
    """Return what `strong_augment` does, with draws of `draw_strong`."""
    size = _size(maps)
    geometry, jitter, blur, mix, grey = draws
    if config.order == "jitter_first":
        return _mix(_recolour(_move(maps, config, geometry, size), config, jitter, blur, grey), config, mix)
    unflipped = config.model_copy(update={"flip": 0.0})
    maps = _move(maps, unflipped, geometry._replace(flip=torch.zeros_like(geometry.flip)), size)
    maps = _recolour(_mix(maps, config, mix), config, jitter, blur, grey)
    return maps if config.flip == 0 else apply_flip(maps, geometry.flip)


def draw_strong(
    image: Tensor,
    config: StrongAugmentConfig,
    seed: int,
    step: int,
    rank: int,
    world_size: int,
    purpose: str = "",
) -> StrongDraws:
    """Draw for a rank's images [N, 3, H, W], of which only the shape and the device are read; see `strong_augment`."""
    total, size = len(image) * world_size, (image.shape[-2], image.shape[-1])
    # All is drawn, used or not: switching one part off leaves the others' numbers as they were.
    draws = generator(seed, f"augment.strong{purpose}", step)
    drawn = StrongDraws(
        draw_geometry(config, total, draws),
        draw_jitter(config, total, draws),
        draw_blur(config, total, draws),
        draw_mix(config, total, size, draws),
        draw_grey(config, total, draws),
    )
    return rank_share(drawn, rank, len(image), image.device)


def _size(maps: Maps) -> tuple[int, int]:
    height, width = maps[IMAGE].shape[-2:]
    return height, width


def _share(draws: Draws, maps: Maps, rank: int) -> Draws:
    return rank_share(draws, rank, len(maps[IMAGE]), maps[IMAGE].device)


def _move(
    maps: Maps,
    config: GeometryConfig,
    params: GeometryParams,
    out_size: tuple[int, int],
    sizes: Tensor | None = None,
) -> Maps:
    if sizes is None and moves_nothing(config, _size(maps), out_size):
        return maps
    return apply_geometry(maps, params, out_size, sizes)


def _recolour(maps: Maps, config: PhotometricConfig, jitter: JitterParams, blur: BlurParams, grey: GreyParams) -> Maps:
    image = maps[IMAGE]
    if config.jitter > 0:
        image = apply_jitter(image, jitter)
    if config.grey > 0:
        image = apply_grey(image, grey)
    if config.blur > 0:
        image = apply_blur(image, blur, config.blur_sigma[1])
    return maps | {IMAGE: image}


def _mix(maps: Maps, config: StrongAugmentConfig, params: MixParams) -> Maps:
    if config.mix == "none" or config.mix_probability == 0:
        return maps
    return apply_mix(maps, params, config)
