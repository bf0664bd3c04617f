"""Class prototypes: the moving average of the mean representation of each class (Eq. 2, 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.config import IGNORE


class Prototypes(NamedTuple):
    """One direction a class, and whether the class was ever seen."""

    values: Tensor
    """[K, D] float32; rows of classes never seen are zero and take part in nothing."""
    seen: Tensor
    """[K] bool."""

    @classmethod
    def empty(cls, num_classes: int, dim: int, device: torch.device | str = "cpu") -> Prototypes:
        """Return prototypes of classes of which none was seen."""
        return cls(
            torch.zeros(num_classes, dim, device=device), torch.zeros(num_classes, dtype=torch.bool, device=device)
        )


class ClassSums(NamedTuple):
    """Sums over a rank's pixels of each class; only they cross the network, K x (D + 1) or, of Gaussians, K x 2 D."""

    sums: Tensor
    """[K, D], sum of the representations of each class; of Gaussians, of their means by their variances."""
    counts: Tensor
    """[K] float32, number of pixels of each class; of Gaussians [K, D], sum of 1 / variance."""

    @property
    def variances(self) -> Tensor:
        """Of the prototypes [K, D], where all variances are at most 1; 1 for classes without a pixel."""
        return 1 / self.counts.clamp(min=1)


def class_sums(representations: Tensor, label: Tensor, num_classes: int, variances: Tensor | None = None) -> ClassSums:
    """Sum the representations of each class (the numerator and denominator of Eq. 2).

    Args:
        representations: [N, D, h, w]; detached here, no gradient reaches a prototype.
        label: [N, h, w] int64, 255 where a pixel does not count.
        num_classes: K.
        variances: [N, D, h, w], in (0, 1], of Gaussians, which count by 1 / variance (PRCL, arXiv 2210.14670).

    Returns:
        The sums and counts of this rank.
    """
    pixels = _rows(representations)
    classes = torch.arange(num_classes, device=label.device).unsqueeze(1)
    members = (label.flatten() == classes).to(pixels.dtype)
    # A matrix product, for `index_add_` adds in an order of its own on CUDA. A view where maps are channels_last.
    if variances is None:
        return ClassSums((members @ pixels).float(), members.sum(1).float())
    weights = _rows(variances).reciprocal()
    return ClassSums((members @ (weights * pixels)).float(), (members @ weights).float())


def _rows(maps: Tensor) -> Tensor:
    return maps.detach().permute(0, 2, 3, 1).flatten(0, 2)


def one_hot(label: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return [N, K, h, w] with a one at each pixel's class, and zeros where the label is 255."""
    classes = torch.arange(num_classes, device=label.device).view(1, -1, 1, 1)
    return (label.unsqueeze(1) == classes).to(dtype)


def own_class(values: Tensor, label: Tensor) -> Tensor:
    """Return [N, h, w], of values [N, K, h, w] the one of each pixel's class, and 0 where the label is 255."""
    own = values.gather(1, label.clamp(max=values.shape[1] - 1).unsqueeze(1)).squeeze(1)
    return torch.where(label == IGNORE, torch.zeros_like(own), own)


def update_prototypes(prototypes: Prototypes, new: ClassSums, momentum: float) -> Prototypes:
    """Return the next prototypes (Eq. 3): momentum * old + (1 - momentum) * mean; a first mean is taken as it is.

    Classes without pixels keep what they have. Whether a class was seen is a flag of its own, not a sum of zero.
    """
    counts = new.counts.reshape(len(new.sums), -1)
    present = counts.amax(dim=1) > 0
    mean = new.sums / counts.clamp(min=1)
    moved = torch.lerp(mean, prototypes.values, momentum)
    values = torch.where(prototypes.seen.unsqueeze(1), moved, mean)
    return Prototypes(torch.where(present.unsqueeze(1), values, prototypes.values), prototypes.seen | present)


def cosine_similarity(representations: Tensor, prototypes: Prototypes) -> Tensor:
    """Return the cosine of each pixel to each prototype, [N, K, h, w] in [-1, 1]; 0 for classes never seen."""
    directions = F.normalize(prototypes.values, dim=1)
    return torch.einsum("ndhw,kd->nkhw", F.normalize(representations, dim=1), directions)


def similarity_probs(similarity: Tensor, seen: Tensor, temperature: float | Tensor) -> Tensor:
    """Return softmax(similarity / tau) over the classes seen (Eq. 5), [N, K, h, w]; all zero before any was seen.

    The published code lets classes never seen take part with similarity 0, where they can win; here they cannot.
    """
    any_seen = seen.any()
    excluded = torch.where(seen | ~any_seen, 0.0, float("-inf")).to(similarity.dtype)
    # Classes last: a softmax along another axis of channels_last maps copies them first.
    scaled = (similarity / temperature).permute(0, 2, 3, 1).add_(excluded)
    return (scaled.softmax(dim=-1) * any_seen).permute(0, 3, 1, 2)


def best_class(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class with the largest probability [N, H, W] and that probability; 255 and 0 where all are zero."""
    value, label = probs.max(dim=1)
    return torch.where(value > 0, label, IGNORE), value
