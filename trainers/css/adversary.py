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


def adversarial_losses(
    judged: Judgement, labels: Tensor, labelled_pixels: Tensor, unlabelled_pixels: int
) -> AdversarialLosses:
    """Return the losses of both (Eq. 2 and 4 of the paper); pixels without a label are in none.

    Args:
        judged: of the student's maps of N labelled and then U unlabelled images, and of N labels.
        labels: [N, H, W], 255 ignored.
        labelled_pixels: scalar, those with a label in the whole batch.
        unlabelled_pixels: of the whole batch.
    """
    known = (labels != IGNORE).unsqueeze(1)
    all_pixels = (labelled_pixels + unlabelled_pixels).clamp(min=1)
    labelled_pixels = labelled_pixels.clamp(min=1)
    for_labelled, for_unlabelled = judged.for_student[: len(labels)], judged.for_student[len(labels) :]
    of_labelled, of_unlabelled = judged.of_student[: len(labels)], judged.of_student[len(labels) :]
    false = (F.softplus(of_labelled) * known).sum() + F.softplus(of_unlabelled).sum()
    true = (F.softplus(-judged.of_truth) * known).sum()
    return AdversarialLosses(
        (F.softplus(-for_labelled) * known).sum() / labelled_pixels,
        F.softplus(-for_unlabelled).sum() / max(1, unlabelled_pixels),
        (false / all_pixels + true / labelled_pixels) / 2,
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
