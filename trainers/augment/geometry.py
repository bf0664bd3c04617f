"""Magnification, crop or shift, and flip, in one resampling of all maps.

A window of the input is magnified onto the output. Along an axis of W input and w output pixels, output pixel j (from
the other end where flipped) shows the input at

    x(j) = start + (j + 0.5) / scale,    start = round(anchor * (W - w / scale) + shift * W)

in pixels from the edge. Starts are whole pixels, so that without magnification pixels are moved and not interpolated.
The grid is made axis by axis: the matrix product in `affine_grid` is off by pixels under TF32 or bfloat16 autocast.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.augment.maps import IMAGE, Maps, is_label, mean_colour
from trainers.config import IGNORE, StrongAugmentConfig, WeakAugmentConfig


class GeometryParams(NamedTuple):
    """One row an image."""

    scale: Tensor
    """Magnification, float32 [N]."""
    anchor: Tensor
    """Share of the room around the window that lies above it and to its left, float32 [N, 2] in [0, 1]."""
    shift: Tensor
    """Further shift down and right, as a share of the side, float32 [N, 2]."""
    flip: Tensor
    """Whether left and right are exchanged, bool [N]."""


def draw_geometry(
    config: WeakAugmentConfig | StrongAugmentConfig, count: int, generator: torch.Generator
) -> GeometryParams:
    """Draw for `count` images: weak augmentation places its crop anywhere, strong shifts a centred window."""
    draws = torch.rand(count, 4, generator=generator)
    low, high = (math.log(bound) for bound in config.scale)
    place = draws[:, 1:3]
    centred, unmoved = torch.full_like(place, 0.5), torch.zeros_like(place)
    weak = isinstance(config, WeakAugmentConfig)
    return GeometryParams(
        scale=torch.exp(low + draws[:, 0] * (high - low)),
        anchor=place if weak else centred,
        shift=unmoved if isinstance(config, WeakAugmentConfig) else config.shift * (2 * place - 1),
        flip=draws[:, 3] < config.flip,
    )


def moves_nothing(
    config: WeakAugmentConfig | StrongAugmentConfig, size: tuple[int, int], out_size: tuple[int, int]
) -> bool:
    """Return whether every draw from `config` is the identity; told from the config alone."""
    still = config.shift == 0 if isinstance(config, StrongAugmentConfig) else True
    return still and config.scale == (1.0, 1.0) and config.flip == 0 and size == out_size


def apply_geometry(maps: Maps, params: GeometryParams, out_size: tuple[int, int]) -> Maps:
    """Resample all maps to `out_size`: images bilinearly, everything else to the nearest pixel, values untouched.

    What lies outside of the input is the image's mean colour, label 255, and 0 in the other maps.

    Args:
        maps: See `trainers.augment.maps`.
        params: Rows of the images in `maps`, on their device.
        out_size: Height and width of the result.
    """
    image = maps[IMAGE]
    rows, rows_inside = _axis(params, 0, image.shape[-2], out_size[0])
    columns, columns_inside = _axis(params, 1, image.shape[-1], out_size[1])
    shape = (len(image), *out_size)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1)
    inside = rows_inside[:, :, None] & columns_inside[:, None, :]

    sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    moved = {IMAGE: torch.where(inside[:, None], sampled, mean_colour(image))}
    others = [key for key in maps if key != IMAGE]
    if others:
        # Labels up to 255 are exact in float32, and the nearest pixel is copied, so one resampling serves all.
        stack = torch.stack([maps[key].float() for key in others], 1)
        nearest = F.grid_sample(stack, grid, mode="nearest", padding_mode="border", align_corners=False)
        for key, values in zip(others, nearest.unbind(1), strict=True):
            outside = IGNORE if is_label(key) else 0
            moved[key] = torch.where(inside, values, outside).to(maps[key].dtype)
    return {key: moved[key] for key in maps}


def _axis(params: GeometryParams, axis: int, size: int, out_size: int) -> tuple[Tensor, Tensor]:
    """Return where each output pixel looks along an axis (0 rows, 1 columns), [N, out] from -1 to 1, and if inside."""
    pixels = torch.arange(out_size, device=params.scale.device, dtype=torch.float32).expand(len(params.scale), -1)
    if axis == 1:
        pixels = torch.where(params.flip[:, None], out_size - 1 - pixels, pixels)
    room = size - out_size / params.scale
    start = torch.round(params.anchor[:, axis] * room + params.shift[:, axis] * size)
    place = start[:, None] + (pixels + 0.5) / params.scale[:, None]
    return 2 * place / size - 1, (place >= 0) & (place < size)
