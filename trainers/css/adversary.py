"""Losses of a student and its discriminator, and the discriminator's map as an indicator of labels.

Hung et al., "Adversarial Learning for Semi-Supervised Semantic Segmentation", BMVC 2018 (arXiv 1802.07934).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.compute import as_network
from trainers.config import IGNORE, TrainConfig
from trainers.css.pseudo_labels import Targets, upsample
from trainers.models.discriminator import Discriminator, Judgement


class AdversarialLosses(NamedTuple):
    """Binary cross-entropies, summed over the rank's pixels and divided by the number of all."""

    labelled: Tensor
    """The student's on labelled images: how far the discriminator is from taking its maps for labels."""
    unlabelled: Tensor
    """Likewise on unlabelled images; 0 where there are none."""
    discriminator: Tensor
    """Mean of that on the student's maps and that on labels; log 2 where it tells nothing apart."""


def adversarial_losses(judged: Judgement, labels: Tensor, pixels: Tensor) -> AdversarialLosses:
    """Return the losses of both (Eq. 2 and 4 of the paper); pixels without a label or pseudo-label are in none.

    Args:
        judged: of the student's maps of N labelled and then U unlabelled images, and of N labels.
        labels: [N + U, H, W], those of the unlabelled images are pseudo-labels; 255 ignored.
        pixels: [2], how many labelled and unlabelled pixels of the whole batch are not ignored.
    """
    count, known = len(judged.of_truth), (labels != IGNORE).unsqueeze(1)
    for_student, of_student = F.softplus(-judged.for_student) * known, F.softplus(judged.of_student) * known
    labelled, unlabelled = pixels.clamp(min=1)
    false = of_student.sum() / pixels.sum().clamp(min=1)
    true = (F.softplus(-judged.of_truth) * known[:count]).sum() / labelled
    return AdversarialLosses(
        for_student[:count].sum() / labelled, for_student[count:].sum() / unlabelled, (false + true) / 2
    )


def as_maps(labels: Tensor, num_classes: int) -> Tensor:
    """Return labels [N, H, W] as maps [N, K, H, W] of 0 and 1; of 255 all classes are 0."""
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    return (labels.unsqueeze(1) == classes).float()


def judged_targets(
    targets: Targets, logits: Tensor, config: TrainConfig, discriminator: Discriminator | None
) -> Targets:
    """Let the discriminator's map of a teacher's logits [N, K, h, w] be the confidence, the indicator, or both."""
    gates, indicates = config.css.unsupervised_gate == "discriminator", config.valid_indicator == "discriminator"
    if discriminator is None or not (gates or indicates):
        return targets
    size = targets.confidence.shape[-2], targets.confidence.shape[-1]
    with as_network(config, logits.device):
        truth = discriminator.judge(upsample(logits, size).softmax(dim=1)).sigmoid().squeeze(1)
    return targets._replace(
        confidence=truth if gates else targets.confidence, indicator=truth if indicates else targets.indicator
    )
