"""CutMix, ClassMix and CutOut: part of each image is replaced, in all maps alike."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.augment.maps import IMAGE, LABEL, Maps, is_label, mean_colour
from trainers.config import IGNORE, StrongAugmentConfig

BOX_AREA = (0.1, 0.5)
"""Range of a box's share of the image."""
BOX_ASPECT = (0.5, 2.0)
"""Range of a box's height by its width, both as shares of the side; every such box fits into the image."""


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
    """Order in which classes are taken by ClassMix, float32 [N, 255]."""


def draw_mix(config: StrongAugmentConfig, count: int, generator: torch.Generator) -> MixParams:
    """Draw for `count` images: a box (uniform area and place, log-uniform aspect) and an order of the classes."""
    draws = torch.rand(count, 5, generator=generator)
    area = BOX_AREA[0] + (BOX_AREA[1] - BOX_AREA[0]) * draws[:, 1]
    low, high = (math.log(bound) for bound in BOX_ASPECT)
    aspect = torch.exp(low + (high - low) * draws[:, 2])
    return MixParams(
        apply=draws[:, 0] < config.mix_probability,
        height=torch.sqrt(area * aspect),
        width=torch.sqrt(area / aspect),
        top=draws[:, 3],
        left=draws[:, 4],
        priority=torch.rand(count, IGNORE, generator=generator),
    )


def apply_mix(maps: Maps, params: MixParams, kind: str) -> Maps:
    """Replace part of each image.

    - `cutmix`: a box, by the same box of the partner.
    - `classmix`: where the partner's "label" is one of half of the classes present there (rounded up; never 255), by
      the partner.
    - `cutout`: a box, by nothing: the image's mean colour, label 255, and 0 in the other maps.

    Args:
        maps: See `trainers.augment.maps`; `classmix` needs the key "label".
        params: Rows of the images in `maps`, on their device.
        kind: One of the above, or `none`.
    """
    if kind == "none":
        return maps
    source = _nothing(maps) if kind == "cutout" else _of_partners(maps)
    mask = _class_mask(source[LABEL], params) if kind == "classmix" else _box_mask(maps[IMAGE], params)
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


def _class_mask(label: Tensor, params: MixParams) -> Tensor:
    """Return where `label` [N, H, W] is one of the chosen half of the classes it holds, bool [N, H, W]."""
    flat = label.flatten(1)
    present = torch.zeros(len(label), IGNORE + 1, dtype=torch.bool, device=label.device)
    present = present.scatter(1, flat, torch.ones_like(flat, dtype=torch.bool))[:, :IGNORE]
    # Classes that are absent rank last, so the first half of those present are a random half.
    order = torch.argsort(torch.where(present, params.priority, 2.0), dim=1)
    rank = torch.argsort(order, dim=1)
    half = (present.sum(1, keepdim=True) + 1) // 2
    chosen = torch.cat([present & (rank < half), torch.zeros_like(present[:, :1])], 1)
    return chosen.gather(1, flat).view(label.shape)
