"""Sliding windows: a large image seen through overlapping windows whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

Probs = Callable[[Tensor], Tensor]
"""Maps images [N, 3, h, w] to probabilities [N, K, h, w] of the classes."""


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where windows start along a side: the first at 0, the last flush with the end, evenly between.

    As few windows as cover the side with each covering at least `overlap` of the one before; a side no longer than a
    window has one.

    Args:
        length: of the side, in pixels.
        window: length of a window, in pixels.
        overlap: in [0, 1), a share of the window.
    """
    rest = length - window
    if rest <= 0:
        return [0]
    # A hair above keeps products such as 10 * (1 - 0.9) from losing a pixel to rounding.
    stride = max(1, int(window * (1 - overlap) + 1e-6))
    moves = -(-rest // stride)
    return [rest * move // moves for move in range(moves + 1)]


def sliding_labels(probs: Probs, image: Tensor, window: tuple[int, int], overlap: float, batch: int) -> Tensor:
    """Return the class [H, W] with the largest mean probability over the windows that see a pixel.

    Every window sees the true image: one that is larger than the image along a side is cut to it.

    Args:
        probs: the network on windows.
        image: [3, H, W].
        window: height and width.
        overlap: in [0, 1), the least share of a window that the next one covers again.
        batch: windows a forward.
    """
    height, width = image.shape[-2:]
    rows, columns = min(window[0], height), min(window[1], width)
    corners = list(product(window_starts(height, rows, overlap), window_starts(width, columns, overlap)))
    total: Tensor | None = None
    for first in range(0, len(corners), batch):
        chosen = corners[first : first + batch]
        window_probs = probs(torch.stack([image[:, top : top + rows, left : left + columns] for top, left in chosen]))
        if total is None:
            total = window_probs.new_zeros(window_probs.shape[1], height, width)
        for (top, left), part in zip(chosen, window_probs, strict=True):
            total[:, top : top + rows, left : left + columns] += part
    assert total is not None  # noqa: S101 - an image has at least one window
    # A pixel's probabilities are divided by one number, which no arg-max sees.
    return total.argmax(dim=0)
