"""One step of the published CSS (mix) on one rank: from a weakly augmented batch to losses, prototypes and weights.

The order of things is that of the published script (mix_label.py, networks/ddp_model.py, loss/loss.py): the teacher, in
training mode, labels the unlabelled images in both spaces; geometry, mixing and colours; two forwards of the student;
cross-entropy, the image-weighted L_u, the contrastive loss with the prototypes after their update; SGD; the moving
average. Where the trainer differs on purpose, the trainer's rule is taken, and named. Networks are those that are
given; all else is float64 and shares nothing with the trainer but the draws.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from reference.plain_augment import Draws, Sample, strong_views
from reference.prototypes import class_means, moved
from reference.pseudo_labels import logit_probs, representation_probs
from torch import Tensor, nn

from trainers.config import StrongAugmentConfig

IGNORED = 255
Prototypes = dict[int, np.ndarray]


class Settings(NamedTuple):
    """Numbers of the published script."""

    strong: StrongAugmentConfig
    temperature: float = 0.5
    weak_threshold: float = 0.7
    strong_threshold: float = 0.8
    unsupervised_threshold: float = 0.97
    contrast_temperature: float = 0.5
    contrast_weight: float = 1.0
    prototype_momentum: float = 0.99
    lr: float = 0.01
    weight_decay: float = 5e-4
    ema: float = 0.99


class Step(NamedTuple):
    """What a step leaves."""

    supervised: float
    unsupervised: float
    contrast: float
    """Expected over all draws of anchors and negatives."""
    prototypes: Prototypes
    student: dict[str, Tensor]
    """Parameters after the step, had the contrastive loss no weight: its draws are chance."""
    teacher: dict[str, Tensor]
    labels: np.ndarray
    """[U, H, W], of the strong views."""


def published_step(
    student: nn.Module, teacher: nn.Module, prototypes: Prototypes, batch: tuple[Tensor, Tensor, Tensor],
    draws: Draws, step: int, settings: Settings,
) -> Step:  # fmt: skip
    """Take a step from labelled images, their labels and unlabelled images."""
    student, teacher = (copy.deepcopy(network).double().train() for network in (student, teacher))
    images, labels, unlabelled = batch[0].double(), batch[1], batch[2].double()
    views = strong_views(_labelled_views(teacher, prototypes, unlabelled, settings), draws, settings.strong)
    strong = torch.from_numpy(np.stack([np.ascontiguousarray(view.image) for view in views]))
    target = torch.from_numpy(np.stack([view.label for view in views]).astype(np.int64))
    confidence = torch.from_numpy(np.stack([view.confidence for view in views]))

    on_labelled, on_strong = student(images), student(strong)
    supervised = F.cross_entropy(_enlarged(on_labelled.logits, images), labels, ignore_index=IGNORED)
    unsupervised = _image_share(_enlarged(on_strong.logits, images), target, confidence, settings)

    representations = torch.cat([on_labelled.representations, on_strong.representations]).detach()
    valid = _smaller(torch.cat([labels, torch.where(confidence >= settings.weak_threshold, target, IGNORED)]),
                     representations).numpy()  # fmt: skip
    hard = _hard(representations.numpy(), valid, prototypes, settings)
    after = moved(prototypes, class_means(representations.numpy(), valid, _classes(on_strong)),
                  settings.prototype_momentum)  # fmt: skip
    contrast = expected_contrast(representations.numpy(), valid, hard, after, settings.contrast_temperature)

    optimizer = torch.optim.SGD(student.parameters(), settings.lr, 0.9, 0, settings.weight_decay, nesterov=True)
    (supervised + unsupervised).backward()
    for parameter in student.parameters():  # of the representation head, which the contrastive loss alone reaches
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()
    keep = min(1 - 1 / (step + 1), settings.ema)
    averaged = {
        name: keep * value.detach() + (1 - keep) * dict(student.named_parameters())[name].detach()
        for name, value in teacher.named_parameters()
    }
    stepped = {name: value.detach() for name, value in student.named_parameters()}
    return Step(supervised.item(), unsupervised.item(), contrast, after, stepped, averaged, target.numpy())


@torch.no_grad()
def _labelled_views(teacher: nn.Module, prototypes: Prototypes, unlabelled: Tensor, settings: Settings) -> list[Sample]:
    """Images with the labels that both spaces agree on, and the confidence of the logits."""
    out, size = teacher(unlabelled), tuple(unlabelled.shape[-2:])
    samples = []
    for image, logits, maps in zip(unlabelled, out.logits, out.representations, strict=True):
        by_logits = logit_probs(logits.numpy(), size)
        # Published: classes never seen take part with similarity 0. Here: they take none.
        seen = np.array(sorted(prototypes))
        by_rep = representation_probs(maps.numpy(), prototypes, settings.temperature, size)
        label = by_logits.argmax(0)
        label = np.where(label == seen[by_rep.argmax(0)], label, IGNORED)
        samples.append(Sample(image.numpy(), label, by_logits.max(0)))
    return samples


def _image_share(logits: Tensor, target: Tensor, confidence: Tensor, settings: Settings) -> Tensor:
    """Every labelled pixel, by its image's share of confident ones. Published: ignored ones can be confident, too."""
    labelled = target != IGNORED
    confident = labelled & (confidence >= settings.unsupervised_threshold)
    share = confident.flatten(1).sum(1) / labelled.flatten(1).sum(1)
    losses = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
    return (losses * share.view(-1, 1, 1))[labelled].mean()


def _hard(representations: np.ndarray, valid: np.ndarray, prototypes: Prototypes, settings: Settings) -> np.ndarray:
    """Where the similarity indicator of a pixel's own class, with the prototypes before the step, is low."""
    seen = sorted(prototypes)
    directions = np.stack([prototypes[class_] / np.linalg.norm(prototypes[class_]) for class_ in seen])
    units = representations / np.linalg.norm(representations, axis=1, keepdims=True)
    scores = np.exp(np.einsum("ndhw,kd->nkhw", units, directions) / settings.temperature)
    probs = scores / scores.sum(1, keepdims=True)
    own = np.zeros(valid.shape)
    for index, class_ in enumerate(seen):
        own = np.where(valid == class_, probs[:, index], own)
    return (valid != IGNORED) & (own < settings.strong_threshold)


def expected_contrast(
    representations: np.ndarray, valid: np.ndarray, hard: np.ndarray, prototypes: Prototypes, temperature: float
) -> float:
    """Eq. 9 with one negative an anchor, expected over anchors and negatives; mean over classes with hard pixels.

    Published: the sum over classes is divided by all that are present, those without hard pixels included.
    """
    pixels = np.moveaxis(representations, 1, -1)
    units = pixels / np.linalg.norm(pixels, axis=-1, keepdims=True)
    present = [class_ for class_ in sorted(prototypes) if (valid == class_).any()]
    towards = {class_: prototypes[class_] / np.linalg.norm(prototypes[class_]) for class_ in present}
    losses = []
    for class_ in present:
        anchors, others = units[hard & (valid == class_)], [other for other in present if other != class_]
        if not len(anchors) or not others:
            continue
        likeness = np.exp([towards[class_] @ towards[other] / temperature for other in others])
        positive = np.exp(anchors @ towards[class_] / temperature)[:, None]
        loss = 0.0
        for other, probability in zip(others, likeness / likeness.sum(), strict=True):
            negative = np.exp(anchors @ units[valid == other].T / temperature)
            loss += probability * float(-np.log(positive / (positive + negative)).mean())
        losses.append(loss)
    return sum(losses) / len(losses)


def _enlarged(maps: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=True)


def _smaller(label: Tensor, maps: Tensor) -> Tensor:
    return F.interpolate(label[:, None].double(), size=maps.shape[-2:], mode="nearest")[:, 0].long()


def _classes(out: Any) -> int:
    return int(out.logits.shape[1])
