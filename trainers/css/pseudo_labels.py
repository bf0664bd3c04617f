"""Pseudo-labels from two spaces, and how they supervise each other (section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.config import IGNORE, TrainConfig
from trainers.css.prototypes import Prototypes, best_class, cosine_similarity, own_class, similarity_probs
from trainers.models.heads import Dense


class PseudoLabels(NamedTuple):
    """A teacher's labels of unlabelled images, in both spaces, at full size."""

    logit_label: Tensor
    """y_lgt [N, H, W], argmax of the logits (Eq. 1)."""
    confidence: Tensor
    """j_lgt [N, H, W] in [1 / K, 1], the largest softmax probability (Eq. 1)."""
    representation_label: Tensor
    """y_rep [N, H, W], the nearest prototype (Eq. 4); 255 before any prototype was seen."""
    similarity: Tensor
    """[N, K, H, W], softmax of the cosines to the prototypes over tau (Eq. 5)."""

    @property
    def agreed(self) -> Tensor:
        """[N, H, W], the label of both spaces; 255 where they disagree."""
        return torch.where(self.logit_label == self.representation_label, self.logit_label, IGNORE)


class Targets(NamedTuple):
    """Labels that supervise the student on unlabelled images."""

    logit_target: Tensor
    """[N, H, W], supervises the logits; 255 is ignored."""
    representation_target: Tensor
    """[N, H, W], supervises the representations; 255 is ignored."""
    confidence: Tensor
    """[N, H, W], compared with delta_u: j_lgt of Eq. 8, or the similarity (`css.unsupervised_gate`)."""
    indicator: Tensor
    """[N, H, W], of the representation target's class, compared with delta_w."""


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize [N, C, h, w] bilinearly to `size`, corners aligned."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def downsample_labels(label: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map [N, H, W] of labels or floats to `size` by taking the nearest pixel."""
    resized: Tensor = F.interpolate(label.unsqueeze(1).double(), size=size, mode="nearest").squeeze(1)
    return resized.to(label.dtype)


def pseudo_labels(
    teacher: Dense, prototypes: Prototypes, temperature: float | Tensor, size: tuple[int, int]
) -> PseudoLabels:
    """Label every pixel twice (Eq. 1, 4, 5).

    Args:
        teacher: logits [N, K, h, w] and representations [N, D, h, w].
        prototypes: [K, D].
        temperature: tau of Eq. 5.
        size: height and width of the labels; logits and similarities are upsampled before the softmax.
    """
    logit_label, confidence = _most_likely(upsample(teacher.logits, size))
    cosines = upsample(cosine_similarity(teacher.representations, prototypes), size)
    similarity = similarity_probs(cosines, prototypes.seen, temperature)
    representation_label, _ = best_class(similarity)
    return PseudoLabels(logit_label, confidence, representation_label, similarity)


def logit_targets(teacher: Dense, size: tuple[int, int]) -> Targets:
    """Label every pixel from the logits alone (Eq. 1): what methods without prototypes train on."""
    label, confidence = _most_likely(upsample(teacher.logits, size))
    return Targets(label, label, confidence, confidence)


def collaborate(labels: PseudoLabels, config: TrainConfig, warming_up: bool) -> Targets:
    """Choose which space's labels supervise which space.

    `cross` lets the logits' labels supervise both spaces while it is warming up and prototypes are poor.
    """
    strategy = config.css.label_strategy
    if strategy == "mix":
        for_logits = for_representations = labels.agreed
    elif strategy == "representation":
        for_logits = for_representations = labels.representation_label
    elif strategy == "logit" or warming_up:
        for_logits = for_representations = labels.logit_label
    else:
        for_logits, for_representations = labels.representation_label, labels.logit_label
    gate = config.css.unsupervised_gate
    by_similarity = gate == "representation" or (gate == "own" and for_logits is labels.representation_label)
    confidence = own_class(labels.similarity, for_logits) if by_similarity else labels.confidence
    return Targets(for_logits, for_representations, confidence, _indicator(labels, for_representations, config))


def _most_likely(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the argmax of logits [N, K, H, W] and its softmax, without the softmax of the other classes."""
    largest, label = logits.max(dim=1, keepdim=True)
    return label.squeeze(1), (logits - largest).exp().sum(dim=1).reciprocal()


def _indicator(labels: PseudoLabels, target: Tensor, config: TrainConfig) -> Tensor:
    return labels.confidence if config.valid_indicator == "confidence" else own_class(labels.similarity, target)
