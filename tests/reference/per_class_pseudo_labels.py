"""Eq. 1, 4, 5 and `mix` in torch, class by class and by one-hot maps: what our pseudo-labels are timed against.

Published code takes cosines to one prototype after the other, makes whole softmax maps of both spaces, and turns labels
into one-hot maps [N, K, H, W] to compare them and to pick the indicator of a class.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = 255


class Mixed(NamedTuple):
    """All at the size of the images."""

    label: Tensor
    """[N, H, W] int64, 255 where the spaces disagree."""
    confidence: Tensor
    """[N, H, W], of the logits."""
    indicator: Tensor
    """[N, H, W], of the label's class; 0 where there is none."""


def mixed_labels(
    logits: Tensor, representations: Tensor, prototypes: Tensor, temperature: float, size: tuple[int, int]
) -> Mixed:
    """From logits [N, K, h, w], representations [N, D, h, w] and prototypes [K, D] of classes that were all seen."""
    num_classes = len(prototypes)
    probs = _enlarged(logits, size).softmax(dim=1)
    confidence, by_logits = probs.max(dim=1)
    cosines = []
    for class_ in range(num_classes):
        cosines.append(F.cosine_similarity(representations, prototypes[class_].view(1, -1, 1, 1), dim=1))
    similarity = (_enlarged(torch.stack(cosines, dim=1), size) / temperature).softmax(dim=1)
    by_prototypes = similarity.max(dim=1).indices
    both = _onehot(by_logits, num_classes) * _onehot(by_prototypes, num_classes)
    label = torch.where(both.sum(dim=1) > 0, both.argmax(dim=1), IGNORED)
    return Mixed(label, confidence, (both * similarity).sum(dim=1))


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def _onehot(label: Tensor, num_classes: int) -> Tensor:
    return F.one_hot(label, num_classes).permute(0, 3, 1, 2)
