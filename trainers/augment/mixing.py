"""CutMix, ClassMix and CutOut: part of each image is replaced, in all maps alike."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.augment.maps import IMAGE, LABEL, Maps, is_label, mean_colour
from trainers.config import IGNORE, StrongAugmentConfig


class MixParams(NamedTuple):
    """One row an image."""

    apply: Tensor
    """Whether the image is mixed, bool [N]."""
    height: Tensor
    """Of the box, as a share of the side, float32 [N]."""
    width: Tensor
    """Of the box, as a share of the side, float32 [N]."""
    top: Tensor
    """Share of the room around the box that lies above it, float32 [N]."""
    left: Tensor
    """Share of the room around the box that lies to its left, float32 [N]."""
    priority: Tensor
    """Order in which ClassMix takes classes, float32 [N, 255], or [N, 256] where the ignored label counts as one."""


def draw_mix(config: StrongAugmentConfig, count: int, size: tuple[int, int], generator: torch.Generator) -> MixParams:
    """Draw for `count` images of height and width `size`: a box, its place uniform, and an order of the classes.

    With `box=half` the width is one of the whole numbers W // 2 + 1 to W - 1, and the height the whole number for which
    the area is nearest to half of the image (published code: generalframeworks/dataset_helpers/VOC.py).
    """
    draws = torch.rand(count, 5, generator=generator)
    if config.box == "half":
        narrow = size[1] // 2 + 1
        columns = narrow + torch.floor(draws[:, 2] * (size[1] - narrow))
        height, width = torch.round(size[0] * size[1] / 2 / columns) / size[0], columns / size[1]
    else:
        area = config.box_area[0] + (config.box_area[1] - config.box_area[0]) * draws[:, 1]
        low, high = (math.log(bound) for bound in config.box_aspect)
        aspect = torch.exp(low + (high - low) * draws[:, 2])
        height, width = torch.sqrt(area * aspect), torch.sqrt(area / aspect)
    classes = IGNORE + 1 if config.classmix == "published" else IGNORE
    return MixParams(
        apply=draws[:, 0] < config.mix_probability,
        height=height,
        width=width,
        top=draws[:, 3],
        left=draws[:, 4],
        priority=torch.rand(count, classes, generator=generator),
    )


def apply_mix(maps: Maps, params: MixParams, config: StrongAugmentConfig) -> Maps:
    """Replace part of each image, as `config.mix` says.

    - `cutmix`: a box, by the same box of the partner.
    - `classmix`: where the partner's "label" is one of half of the classes present there, by the partner. Half is
      rounded up, and 255 is no class; with `classmix=published` it is rounded down, and 255 is one. The published code
      keeps the image's chosen classes and takes the rest from the partner: the same two images, exchanged.
    - `cutout`: a box, by nothing: the image's mean colour, label 255, and 0 in the other maps.
    - `none`: nothing.

    Args:
        maps: See `trainers.augment.maps`; `classmix` needs the key "label".
        params: Rows of the images in `maps`, on their device, drawn from `config`.
        config: Which part.
    """
    if config.mix == "none":
        return maps
    source = _nothing(maps) if config.mix == "cutout" else _of_partners(maps)
    if config.mix == "classmix":
        mask = _class_mask(source[LABEL], params, round_up=config.classmix == "ceil")
    else:
        mask = _box_mask(maps[IMAGE], params)
    mask = mask & params.apply[:, None, None]
    return {
        key: torch.where(mask[:, None] if key == IMAGE else mask, source[key], values) for key, values in maps.items()
    }


def partners(count: int, device: torch.device) -> Tensor:
    """Return the index of each image's partner, int64 [count]: pairs (0, 1), (2, 3), ...; a last odd one takes 0.

    While every rank holds an even number of images, pairs do not cross ranks, so they do not depend on the ranks.
    """
    index = torch.arange(count, device=device) ^ 1
    return torch.where(index < count, index, 0)


def _of_partners(maps: Maps) -> Maps:
    index = partners(len(maps[IMAGE]), maps[IMAGE].device)
    return {key: values.index_select(0, index) for key, values in maps.items()}


def _nothing(maps: Maps) -> Maps:
    empty = {key: torch.full_like(values, IGNORE if is_label(key) else 0) for key, values in maps.items()}
    return empty | {IMAGE: mean_colour(maps[IMAGE])}


def _box_mask(image: Tensor, params: MixParams) -> Tensor:
    """Return which pixels lie in each image's box, bool [N, H, W]."""
    rows = _span(params.top, params.height, image.shape[-2])
    columns = _span(params.left, params.width, image.shape[-1])
    return rows[:, :, None] & columns[:, None, :]


def _span(place: Tensor, share: Tensor, size: int) -> Tensor:
    """Return which of `size` pixels an interval covers, bool [N, size]: its length and start are whole pixels."""
    pixels = torch.arange(size, device=place.device)
    length = torch.round(share * size)
    start = torch.round(place * (size - length))[:, None]
    return (pixels >= start) & (pixels < start + length[:, None])


def _class_mask(label: Tensor, params: MixParams, round_up: bool) -> Tensor:
    """Return where `label` [N, H, W] is one of the chosen half of the classes it holds, bool [N, H, W]."""
    flat, classes = label.flatten(1), params.priority.shape[1]
    present = torch.zeros(len(label), IGNORE + 1, dtype=torch.bool, device=label.device)
    present = present.scatter(1, flat, torch.ones_like(flat, dtype=torch.bool))[:, :classes]
    # Classes that are absent rank last, so the first half of those present are a random half.
    order = torch.argsort(torch.where(present, params.priority, 2.0), dim=1)
    rank = torch.argsort(order, dim=1)
    half = (present.sum(1, keepdim=True) + round_up) // 2
    chosen = F.pad(present & (rank < half), (0, IGNORE + 1 - classes))
    return chosen.gather(1, flat).view(label.shape)
