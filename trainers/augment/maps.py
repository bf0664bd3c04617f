"""Maps that are augmented together: an image and every map over its pixels.

Keys of `Maps`:
    "image": float32 [N, 3, H, W] in [0, 1];
    "label...": int64 [N, H, W], classes 0 to 254, 255 = ignored;
    anything else: float32 [N, H, W], such as a confidence or an indicator; moved, never rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor

Maps = dict[str, Tensor]

IMAGE = "image"
LABEL = "label"


def is_label(key: str) -> bool:
    """Return whether the map of this key holds labels."""
    return key.startswith(LABEL)


def mean_colour(image: Tensor) -> Tensor:
    """Return the mean colour of each image, [N, 3, 1, 1]: what fills the part of an image that shows nothing."""
    return image.mean((-2, -1), keepdim=True)


def rank_share(parameters: tuple[Tensor, ...], rank: int, count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return the parameters of this rank's `count` images, out of those drawn for the global batch, on `device`."""
    rows = slice(rank * count, (rank + 1) * count)
    return tuple(column[rows].to(device, non_blocking=True) for column in parameters)


def per_image(column: Tensor) -> Tensor:
    """Return one number an image, [N], in a shape that broadcasts over [N, C, H, W]."""
    return column[:, None, None, None]
