"""Scores of labels against the truth, from exact counts of pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainers.config import IGNORE


class Scores(NamedTuple):
    """Intersection over union of each class, and its mean."""

    miou: float
    """Mean over the classes that occur in truth or prediction, in [0, 1]; 0 where none does."""
    iou: Tensor
    """[K] float64; NaN for classes that occur in neither."""


def iou_scores(confusion: Tensor) -> Scores:
    """Return IoU = TP / (TP + FP + FN) from a confusion matrix [K, K] (rows truth, columns prediction).

    A class that is absent from truth and prediction is left out of the mean, which therefore is never
    NaN.
    """
    confusion = confusion.double()
    hit = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hit
    iou = hit / union
    occurring = union > 0
    return Scores(float(iou[occurring].mean()) if occurring.any() else 0.0, iou)


def count_pairs(truth: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Return how many pixels have each pair of truth and label, [K, K] int64: rows truth, columns label.

    Exact at any size, and without waiting for the device.

    Args:
        truth: int64, any shape; pixels where it is 255 are not counted.
        label: int64, of the same shape; pixels where it is 255 are not counted either.
        num_classes: K.
    """
    counted = (truth != IGNORE) & (label != IGNORE)
    return _count(torch.where(counted, truth * num_classes + label, num_classes**2), num_classes**2).view(
        num_classes, num_classes
    )


def count_classes(label: Tensor, num_classes: int) -> Tensor:
    """Return how many pixels have each label, [K] int64; pixels of 255 are not counted."""
    return _count(label.clamp(max=num_classes), num_classes)


def _count(values: Tensor, below: int) -> Tensor:
    """Count the integers 0 to `below`, and drop the last count."""
    counts = torch.zeros(below + 1, dtype=torch.int64, device=values.device)
    flat = values.flatten()
    return counts.scatter_add_(0, flat, torch.ones_like(flat))[:below]
