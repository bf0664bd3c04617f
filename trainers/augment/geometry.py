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

from trainers.augment.maps import IMAGE, Maps, is_label, mean_colour, per_image
from trainers.config import IGNORE, GeometryConfig, StrongAugmentConfig


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


def draw_geometry(config: GeometryConfig, count: int, generator: torch.Generator) -> GeometryParams:
    """Draw for `count` images: a window at any place or, where strong augmentation says so, a shifted centred one."""
    draws = torch.rand(count, 4, generator=generator)
    log = config.scale_draw == "log"
    low, high = (math.log(bound) if log else bound for bound in config.scale)
    scale, place = low + draws[:, 0] * (high - low), draws[:, 1:3]
    anchor, shift = place, torch.zeros_like(place)
    if isinstance(config, StrongAugmentConfig) and config.place == "centred":
        anchor, shift = torch.full_like(place, 0.5), config.shift * (2 * place - 1)
    return GeometryParams(torch.exp(scale) if log else scale, anchor, shift, flip=draws[:, 3] < config.flip)


def moves_nothing(config: GeometryConfig, size: tuple[int, int], out_size: tuple[int, int]) -> bool:
    """Return whether every draw from `config` is the identity; known from the config alone."""
    shifts = isinstance(config, StrongAugmentConfig) and config.place == "centred" and config.shift > 0
    return not shifts and config.scale == (1.0, 1.0) and config.flip == 0 and size == out_size


def apply_geometry(maps: Maps, params: GeometryParams, out_size: tuple[int, int], sizes: Tensor | None = None) -> Maps:
    """Resample all maps to `out_size`: images bilinearly, everything else to the nearest pixel, values untouched.

    What lies outside of the input is the image's mean colour, label 255, and 0 in the other maps.

    Args:
        maps: See `trainers.augment.maps`.
        params: Rows of the images in `maps`, on their device.
        out_size: Height and width of the result.
        sizes: Height and width of each image, float32 [N, 2], where they are padded at the bottom and right with 0: W
            above is then an image's own, and its padding is outside. None: the images fill their tensor.
    """
    image = maps[IMAGE]
    height, width = (None, None) if sizes is None else sizes[:, :, None].unbind(1)
    rows, rows_inside = _axis(params, 0, image.shape[-2], out_size[0], height)
    columns, columns_inside = _axis(params, 1, image.shape[-1], out_size[1], width)
    shape = (len(image), *out_size)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1)
    inside = rows_inside[:, :, None] & columns_inside[:, None, :]

    sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    filling = mean_colour(image) if sizes is None else _mean_of_true(image, sizes)
    moved = {IMAGE: torch.where(inside[:, None], sampled, filling)}
    others = [key for key in maps if key != IMAGE]
    if others:
        # Labels up to 255 are exact in float32, and the nearest pixel is copied, so one resampling serves all.
        stack = torch.stack([maps[key].float() for key in others], 1)
        nearest = F.grid_sample(stack, grid, mode="nearest", padding_mode="border", align_corners=False)
        for key, values in zip(others, nearest.unbind(1), strict=True):
            outside = IGNORE if is_label(key) else 0
            moved[key] = torch.where(inside, values, outside).to(maps[key].dtype)
    return {key: moved[key] for key in maps}


def apply_flip(maps: Maps, flip: Tensor) -> Maps:
    """Exchange left and right of the images for which `flip`, bool [N], holds, in all maps."""
    return {
        key: torch.where(per_image(flip) if key == IMAGE else flip[:, None, None], values.flip(-1), values)
        for key, values in maps.items()
    }


def _mean_of_true(image: Tensor, sizes: Tensor) -> Tensor:
    """Return the mean colour of each image without its padding, which is 0, [N, 3, 1, 1]."""
    return image.sum((-2, -1), keepdim=True) / sizes.prod(1)[:, None, None, None]


def _axis(params: GeometryParams, axis: int, stored: int, out_size: int, true: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return where each output pixel samples along an axis (0 rows, 1 columns), and if that is inside of the image.

    Args:
        params: Rows of the images.
        axis: 0 or 1.
        stored: Pixels of the tensor along the axis.
        out_size: Pixels of the result along the axis.
        true: Pixels of each image, float32 [N, 1]; none: those of the tensor.

    Returns:
        Both [N, out]; places are -1 to 1 over the tensor.
    """
    pixels = torch.arange(out_size, device=params.scale.device, dtype=torch.float32).expand(len(params.scale), -1)
    if axis == 1:
        pixels = torch.where(params.flip[:, None], out_size - 1 - pixels, pixels)
    size: int | Tensor = stored if true is None else true
    scale, anchor, shift = params.scale[:, None], params.anchor[:, axis, None], params.shift[:, axis, None]
    start = torch.round(anchor * (size - out_size / scale) + shift * size)
    place = start + (pixels + 0.5) / scale
    inside = (place >= 0) & (place < size)
    if true is not None:  # interpolation stops at the image's edge, as it does at the tensor's
        place = torch.minimum(place.clamp(min=0.5), true - 0.5)
    return 2 * place / stored - 1, inside
