"""Maps that are augmented together: an image and every map over its pixels.

Keys of `Maps`:
    "image": float32 [N, 3, H, W] in [0, 1];
    "label...": int64 [N, H, W], classes 0 to 254, 255 = ignored;
    anything else: float32 [N, H, W], such as a confidence or an indicator; moved, never rounded.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from trainers.transfer import send_together

Maps = dict[str, Tensor]
Draws = TypeVar("Draws", bound=tuple[Any, ...])

IMAGE = "image"
LABEL = "label"
WEAK = "label_weak"


def is_label(key: str) -> bool:
    """Return whether the map of this key holds labels."""
    return key.startswith(LABEL)


def mean_colour(image: Tensor) -> Tensor:
    """Return the mean colour of each image, [N, 3, 1, 1]: what fills the part of an image that shows nothing."""
    return image.mean((-2, -1), keepdim=True)


def rank_share(draws: Draws, rank: int, count: int, device: torch.device) -> Draws:
    """Return what was drawn for this rank's `count` images, out of that for the global batch, in one copy to `device`.

    Args:
        draws: tuples, nested at will, of tensors with a row an image, float32 or bool.
        rank: 0 to the number of ranks - 1.
        count: images a rank.
        device: of this rank.
    """
    columns, structure = tree_flatten(draws)
    rows = [column[rank * count : (rank + 1) * count] for column in columns]
    shared: Draws = tree_unflatten(rows if device.type == "cpu" else send_together(rows, device), structure)
    return shared


def per_image(column: Tensor) -> Tensor:
    """Return one number an image, [N], in a shape that broadcasts over [N, C, H, W]."""
    return column[:, None, None, None]
