"""Cross-entropies on labelled pixels (Eq. 7) and on pseudo-labelled ones (Eq. 8).

Every function returns a sum and what it is to be divided by, both of this rank: the caller divides by the sum of the
divisors over the ranks, so that ranks together compute what one process would.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


def supervised_loss(logits: Tensor, label: Tensor, class_weights: Tensor | None = None) -> LossSum:
    """Cross-entropy over labelled pixels (Eq. 7); with class weights, both sum and divisor are weighted.

    Args:
        logits: [N, K, H, W].
        label: [N, H, W], 255 ignored.
        class_weights: [K], positive; none: all are 1.
    """
    # Pixels as rows: on channels_last maps the softmax over classes then runs along memory.
    rows = logits.permute(0, 2, 3, 1).flatten(0, 2)
    settings: dict[str, Any] = {"weight": class_weights, "ignore_index": IGNORE}
    if logits.device.type == "cuda":  # where rows are summed by a kernel of a single block, one after the other
        total = F.cross_entropy(rows, label.flatten(), reduction="none", **settings).sum()
    else:
        total = F.cross_entropy(rows, label.flatten(), reduction="sum", **settings)
    return LossSum(total, supervised_divisor(label, class_weights))


def supervised_divisor(label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return what `supervised_loss` of these labels is divided by, which no logit changes."""
    if class_weights is None:
        return _labelled(label).sum()
    return F.pad(class_weights, (0, IGNORE + 1 - len(class_weights)))[label].sum()


def hard_example_loss(
    logits: Tensor,
    label: Tensor,
    threshold: float | Tensor,
    min_kept: int,
    class_weights: Tensor | None = None,
    scope: str = "image",
) -> LossSum:
    """Cross-entropy over hard labelled pixels: online hard example mining (Shrivastava et al., 2016).

    A pixel is kept where the probability of its class is at most the threshold, and in any case where it is among the
    `min_kept` hardest of its image or, with `scope` batch, the N x `min_kept` hardest of the batch. Images that choose
    for themselves keep on ranks what one process would; the published code lets a rank's batch choose.

    Args:
        logits: [N, K, H, W].
        label: [N, H, W], 255 ignored.
        threshold: in [0, 1]; 0.7 in the paper.
        min_kept: pixels an image; 50 000 in the paper.
        class_weights: [K], positive; none: all are 1.
        scope: image or batch.
    """
    per_pixel = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
    with torch.no_grad():
        probs = torch.where(_labelled(label), (-per_pixel).exp(), torch.inf)
        probs = probs.flatten(1) if scope == "image" else probs.view(1, -1)
        least = min_kept * (len(label) // len(probs))
        kth = probs.kthvalue(min(least, probs.shape[1]), dim=1, keepdim=True).values
        kept = (probs <= kth.clamp(min=threshold)).view_as(label) & _labelled(label)
    return supervised_loss(logits, torch.where(kept, label, IGNORE), class_weights)


def confident_pixel_loss(logits: Tensor, target: Tensor, confidence: Tensor, threshold: float | Tensor) -> LossSum:
    """Cross-entropy over the pixels whose confidence is at least the threshold (Eq. 8), divided by their number.

    Args:
        logits: [N, K, H, W] of the student.
        target: [N, H, W] pseudo-labels, 255 ignored.
        confidence: j_lgt [N, H, W].
        threshold: delta_u.
    """
    return supervised_loss(logits, confident_labels(target, confidence, threshold))


def confident_labels(target: Tensor, confidence: Tensor, threshold: float | Tensor) -> Tensor:
    """Return the pseudo-labels [N, H, W] with 255 where the confidence is below the threshold."""
    return torch.where(confidence >= threshold, target, IGNORE)


def image_share_loss(logits: Tensor, target: Tensor, confidence: Tensor, threshold: float | Tensor) -> LossSum:
    """Cross-entropy over all pseudo-labelled pixels, each image weighted by its share of confident ones.

    This is what the published code computes where Eq. 8 says otherwise. Unlike there, ignored pixels count neither as
    confident nor in the mean, so weights are at most 1 and an image without labels has weight 0.
    """
    labelled = _labelled(target)
    confident = _labelled(confident_labels(target, confidence, threshold)).flatten(1).sum(1)
    weight = confident / labelled.flatten(1).sum(1).clamp(min=1)
    per_pixel = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    return LossSum((per_pixel * weight.view(-1, 1, 1)).sum(), labelled.sum())


def unsupervised_divisor(target: Tensor, confidence: Tensor, threshold: float | Tensor, kind: str) -> Tensor:
    """Return what L_u of these pseudo-labels is divided by, which no logit changes; `kind` is `loss.unsupervised`."""
    if kind in ("all_pixels", "image_share"):
        return _labelled(target).sum()
    return _labelled(confident_labels(target, confidence, threshold)).sum()


def _labelled(label: Tensor) -> Tensor:
    return label != IGNORE
