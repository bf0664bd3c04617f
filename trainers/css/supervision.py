"""Cross-entropy on labelled pixels (Eq. 7) and on pseudo-labelled ones (Eq. 8).

Every function returns a sum and what it is to be divided by, both of this rank: the caller divides by the sum of the
divisors over the ranks, so that ranks together compute what one process would.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.config import IGNORE


class LossSum(NamedTuple):
    """A loss before its division."""

    total: Tensor
    """Scalar, with gradient."""
    divisor: Tensor
    """Scalar, without; may be zero, and then the total is zero too."""


def supervised_loss(logits: Tensor, label: Tensor) -> LossSum:
    """Cross-entropy over labelled pixels (Eq. 7). logits [N, K, H, W], label [N, H, W] with 255 ignored."""
    return LossSum(F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="sum"), _labelled(label).sum())


def confident_pixel_loss(logits: Tensor, target: Tensor, confidence: Tensor, threshold: float) -> LossSum:
    """Cross-entropy over the pixels whose confidence is at least the threshold (Eq. 8).

    Args:
        logits: [N, K, H, W] of the student.
        target: [N, H, W] pseudo-labels, 255 ignored.
        confidence: j_lgt [N, H, W].
        threshold: delta_u.
    """
    kept = torch.where(confidence >= threshold, target, IGNORE)
    return supervised_loss(logits, kept)


def image_share_loss(logits: Tensor, target: Tensor, confidence: Tensor, threshold: float) -> LossSum:
    """Cross-entropy over all pseudo-labelled pixels, each image weighted by its share of confident ones.

    This is what the published code computes where Eq. 8 says otherwise. Unlike there, ignored pixels count neither as
    confident nor in the mean, so weights are at most 1 and an image without labels has weight 0.
    """
    labelled = _labelled(target)
    confident = (labelled & (confidence >= threshold)).flatten(1).sum(1)
    weight = confident / labelled.flatten(1).sum(1).clamp(min=1)
    per_pixel = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    return LossSum((per_pixel * weight.view(-1, 1, 1)).sum(), labelled.sum())


def _labelled(label: Tensor) -> Tensor:
    return label != IGNORE
