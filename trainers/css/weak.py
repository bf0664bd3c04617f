"""Weak labels: of a pixel only a group of classes is known, one of which it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.config import IGNORE
from trainers.css.supervision import LossSum, supervised_divisor


def partial_label_loss(logits: Tensor, weak: Tensor, class_groups: Tensor) -> LossSum:
    """Sum over the pixels of known group of -log sum_{c in group} p_c: the likelihood of a partial label.

    A group of one class makes it the cross-entropy (Eq. 7); a group of all classes makes it 0, as an unknown one does.

    Args:
        logits: [N, K, H, W].
        weak: [N, H, W] int64, the value of each pixel's group, 255 unknown.
        class_groups: [K] int64, the value of each class's group, 255 for a class of no group.
    """
    weak = weak.unsqueeze(1)
    allowed = (weak == class_groups.view(-1, 1, 1)) | (weak == IGNORE)
    within = torch.where(allowed, logits, -torch.inf).logsumexp(1)
    return LossSum((logits.logsumexp(1) - within).sum(), supervised_divisor(weak))


def contradicted(label: Tensor, weak: Tensor, class_groups: Tensor) -> Tensor:
    """Return where labels [N, H, W], 255 ignored, are of a class outside of the group that is known, bool [N, H, W]."""
    group = F.pad(class_groups, (0, IGNORE + 1 - len(class_groups)), value=IGNORE)[label]
    return (weak != IGNORE) & (group != weak) & (label != IGNORE)
