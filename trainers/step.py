"""One training step of CSS: from a batch to named losses, statistics and the next prototypes. It writes nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers.augment.pipeline import strong_augment
from trainers.config import IGNORE, TrainConfig
from trainers.css.contrast import build_pool, contrastive_loss
from trainers.css.prototypes import (
    ClassSums,
    Prototypes,
    class_sums,
    cosine_similarity,
    one_hot,
    similarity_probs,
    update_prototypes,
)
from trainers.css.pseudo_labels import Targets, collaborate, downsample_labels, pseudo_labels, upsample
from trainers.css.supervision import confident_pixel_loss, image_share_loss, supervised_loss
from trainers.distributed import sum_over_ranks
from trainers.models.heads import Dense
from trainers.randomness import generator


class Batch(NamedTuple):
    """A rank's share of a global batch, weakly augmented, on the device."""

    images: Tensor
    """[N, 3, H, W] in [0, 1], labelled."""
    labels: Tensor
    """[N, H, W] int64, 255 ignored."""
    unlabelled: Tensor | None
    """[U, 3, H, W] in [0, 1]; none where no loss reads it."""


class Place(NamedTuple):
    """Where and when a step happens; with the seed, all that its randomness depends on."""

    seed: int
    step: int
    rank: int = 0
    world_size: int = 1


class StepOutput(NamedTuple):
    """What a step found. Losses are this rank's part: their sum over the ranks is the loss of the global batch."""

    losses: dict[str, Tensor]
    """Unweighted scalars: supervised, unsupervised, contrast."""
    statistics: dict[str, Tensor]
    """Scalars without gradient, of the global batch."""
    prototypes: Prototypes
    """After this step."""


def css_step(
    student: nn.Module, teacher: nn.Module, prototypes: Prototypes, batch: Batch, config: TrainConfig, place: Place
) -> StepOutput:
    """Compute the losses of one step (Eq. 6 to 9) and the next prototypes (Eq. 2, 3).

    Nothing here waits for the device: no `.item()`, no data-dependent shapes. All ranks make one collective, of
    K x (D + 1) numbers for the prototypes, K for the hard pixels and three divisors.
    """
    if batch.unlabelled is None:
        return _supervised_step(student, prototypes, batch, config, place)
    before = _look(teacher, prototypes, batch, config, place)
    inputs = torch.cat([batch.images, before.images])
    seen = forward(student, inputs, config)
    labelled, full = batch.images.shape[0], inputs.shape[-2:]
    logits = upsample(seen.logits, (full[0], full[1]))

    supervised = supervised_loss(logits[:labelled], batch.labels)
    on_pixels = confident_pixel_loss if config.loss.unsupervised == "pixel" else image_share_loss
    unsupervised = on_pixels(
        logits[labelled:], before.targets.logit_target, before.targets.confidence, config.thresholds.delta_u
    )

    valid = _valid_labels(seen, batch.labels, before.targets, config)
    hard = _hard_pixels(seen, valid, prototypes, config)
    pool = build_pool(valid, hard, config.num_classes)
    sums = before.sums if before.sums is not None else class_sums(seen.representations, valid, config.num_classes)
    reduced = sum_over_ranks(
        [sums.sums, sums.counts, pool.hard, supervised.divisor, unsupervised.divisor, pool.counts.sum()],
        place.world_size,
    )
    after = update_prototypes(prototypes, ClassSums(reduced[0], reduced[1]), config.ema.prototype_momentum)
    contrast = contrastive_loss(
        seen.representations,
        pool,
        after,
        reduced[2],
        config.loss,
        generator(place.seed, "contrast", place.step, place.rank, device=inputs.device),
        place.world_size,
    )
    # Only classes that have hard pixels count; the published code divides by all classes present.
    classes = ((reduced[2] > 0) & after.seen).sum().clamp(min=1)
    losses = {
        "supervised": supervised.total / reduced[3].clamp(min=1),
        "unsupervised": unsupervised.total / reduced[4].clamp(min=1),
        "contrast": contrast.sum() / classes,
    }
    pixels = batch.labels.numel() * place.world_size
    unlabelled_pixels = before.targets.confidence.numel() * place.world_size
    statistics = {
        "share/labelled": reduced[3] / pixels,
        "share/unsupervised": reduced[4] / unlabelled_pixels,
        "share/valid": reduced[5] / (valid.numel() * place.world_size),
        "share/hard": reduced[2].sum() / reduced[5].clamp(min=1),
    }
    return StepOutput(losses, statistics, after)


def forward(model: nn.Module, images: Tensor, config: TrainConfig) -> Dense:
    """Run a network in the configured precision; what it returns is float32 either way."""
    reduced = config.optimizer.precision == "bfloat16"
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=reduced):
        dense: Dense = model(images)
    return dense


class _Before(NamedTuple):
    """What is known before the student runs."""

    images: Tensor
    """Strongly augmented unlabelled images [U, 3, H, W]."""
    targets: Targets
    """In the same geometry and mixing."""
    sums: ClassSums | None
    """Of the teacher's representations; none where prototypes are made of the student's."""


def _supervised_step(
    student: nn.Module, prototypes: Prototypes, batch: Batch, config: TrainConfig, place: Place
) -> StepOutput:
    seen = forward(student, batch.images, config)
    size = batch.images.shape[-2:]
    loss = supervised_loss(upsample(seen.logits, (size[0], size[1])), batch.labels)
    (divisor,) = sum_over_ranks([loss.divisor], place.world_size)
    # The representation head has no loss here; a graph of weight zero keeps its gradients defined on every rank.
    unused = seen.representations.sum() * 0.0
    statistics = {"share/labelled": divisor / (batch.labels.numel() * place.world_size)}
    return StepOutput({"supervised": loss.total / divisor.clamp(min=1) + unused}, statistics, prototypes)


@torch.no_grad()
def _look(teacher: nn.Module, prototypes: Prototypes, batch: Batch, config: TrainConfig, place: Place) -> _Before:
    """Let the teacher label the unlabelled images, then augment images and labels together."""
    assert batch.unlabelled is not None  # noqa: S101 - narrowed by the caller
    labelled = batch.images.shape[0]
    from_teacher = config.ema.prototype_source == "teacher"
    inputs = torch.cat([batch.images, batch.unlabelled]) if from_teacher else batch.unlabelled
    seen = forward(teacher, inputs, config)
    on_unlabelled = Dense(*(maps[labelled:] for maps in seen)) if from_teacher else seen
    size = batch.unlabelled.shape[-2:]
    labels = pseudo_labels(on_unlabelled, prototypes, config.css.indicator_temperature, (size[0], size[1]))
    targets = collaborate(labels, config, place.step)
    sums = None
    if from_teacher:
        valid = _valid_labels(seen, batch.labels, targets, config)
        sums = class_sums(seen.representations, valid, config.num_classes)
    augmented = strong_augment(
        {
            "image": batch.unlabelled,
            "label": targets.logit_target,
            "label_representation": targets.representation_target,
            "confidence": targets.confidence,
            "indicator": targets.indicator,
        },
        config.augment.strong,
        place.seed,
        place.step,
        place.rank,
        place.world_size,
    )
    strong = Targets(
        augmented["label"], augmented["label_representation"], augmented["confidence"], augmented["indicator"]
    )
    return _Before(augmented["image"], strong, sums)


def _valid_labels(seen: Dense, labels: Tensor, targets: Targets, config: TrainConfig) -> Tensor:
    """Return [N + U, h, w]: labels of labelled pixels and of unlabelled ones whose indicator is above delta_w."""
    trusted = targets.indicator > config.delta_w_probability
    kept = torch.where(trusted, targets.representation_target, IGNORE)
    height, width = seen.representations.shape[-2:]
    return downsample_labels(torch.cat([labels, kept]), (height, width))


@torch.no_grad()
def _hard_pixels(seen: Dense, valid: Tensor, prototypes: Prototypes, config: TrainConfig) -> Tensor:
    """Return [N + U, h, w] bool: where the student's indicator of the pixel's own class is below delta_s.

    The prototypes are those before this step, so that one collective serves the step; before any exists, all pixels
    are hard.
    """
    if config.css.indicator == "confidence":
        probs = seen.logits.softmax(dim=1)
    else:
        cosines = cosine_similarity(seen.representations, prototypes)
        probs = similarity_probs(cosines, prototypes.seen, config.css.indicator_temperature)
    indicator = (probs * one_hot(valid, config.num_classes)).sum(dim=1)
    return indicator < config.delta_s_probability
