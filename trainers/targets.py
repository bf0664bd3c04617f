"""Targets of the student: the teacher's half of a step. No gradient passes here."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from trainers.augment.maps import WEAK
from trainers.augment.pipeline import StrongDraws, apply_strong
from trainers.compute import as_configured, forward
from trainers.config import IGNORE, StrongAugmentConfig, TrainConfig
from trainers.css.adversary import judged_targets
from trainers.css.bank import BankDraws, Chosen, choose_members
from trainers.css.contrast import SampleDraws
from trainers.css.prototypes import ClassSums, Prototypes, class_sums, own_class
from trainers.css.pseudo_labels import Targets, collaborate, downsample_labels, logit_targets, pseudo_labels, upsample
from trainers.css.supervision import supervised_divisor, unsupervised_divisor
from trainers.css.unreliable import as_unsure, negatives, pixel_entropy, scattered
from trainers.css.weak import contradicted
from trainers.distributed import sum_over_ranks
from trainers.models.discriminator import Discriminator
from trainers.models.heads import Dense
from trainers.randomness import derive_seed
from trainers.schedules import delta_u, delta_w, unreliable_share
from trainers.streams import Keep, StreamDraws, draw_streams
from trainers.transfer import send


class Batch(NamedTuple):
    """A rank's share of a global batch, weakly augmented, on the device."""

    images: Tensor
    """[N, 3, H, W] in [0, 1], labelled."""
    labels: Tensor
    """[N, H, W] int64, 255 ignored."""
    unlabelled: Tensor | None
    """[U, 3, H, W] in [0, 1]; none where no loss reads it."""
    inside: Tensor | None = None
    """[U, H, W] bool, where `unlabelled` shows its image and not what lies around it; none: everywhere."""
    weak: Tensor | None = None
    """[U, H, W] int64, the value of each pixel's group of classes, 255 unknown; none where nothing reads it."""
    class_groups: Tensor | None = None
    """[K] int64, the value of each class's group, 255 for a class of no group; likewise."""


class StepDraws(NamedTuple):
    """Random numbers of a step, on the device."""

    streams: tuple[StreamDraws, ...]
    contrast: SampleDraws | None
    bank: BankDraws | None
    order: Tensor | None = None
    """Of `draw_order`, where unreliable pixels are kept."""


class StepContext(NamedTuple):
    """Step and rank; with the seed, all that its randomness depends on."""

    seed: int
    step: int
    rank: int = 0
    world_size: int = 1
    warming_up: bool = False
    """Whether `cross` still takes all labels from the logits."""
    draws: StepDraws | None = None
    """The random numbers of a step of one part, where it is not to draw them itself."""
    passed: Tensor | None = None
    """Share of the horizon that has passed, where `step` does not say it."""

    def progress(self, steps: int) -> float | Tensor:
        """Return the share of a horizon of so many steps that has passed."""
        return self.step / steps if self.passed is None else self.passed


class View(NamedTuple):
    """What the student sees of the unlabelled images in one stream."""

    images: Tensor
    """[U, 3, H, W]."""
    targets: Targets
    """In the geometry and mixing of the images."""
    weak: Tensor | None
    """[U, H, W], groups of classes in the geometry and mixing of the images; none where L_w does not read them."""
    keep: Keep | None
    """Of the features; none: all."""
    divisor: Tensor
    """Of the stream's loss, over all ranks."""

    def part(self, index: int, parts: int) -> View:
        """Return one of `parts` equal shares of the images, with the divisor of all."""
        images, targets, weak, keep = tree_map_only(Tensor, lambda maps: maps.chunk(parts)[index], self[:-1])
        return View(images, targets, weak, keep, self.divisor)


class StudentBatch(NamedTuple):
    """A batch for the student, with its targets and the sums over the whole batch that its losses are divided by."""

    images: Tensor
    """[N, 3, H, W], labelled."""
    labels: Tensor
    """[N, H, W]."""
    class_weights: Tensor | None
    """Of L_s, [K]; none: all are 1."""
    views: tuple[View, ...]
    """Of the unlabelled images, one for each active stream."""
    supervised_divisor: Tensor
    """Of L_s without OHEM, over all ranks."""
    sums: ClassSums | None
    """Of the teacher's representations over all ranks; none where prototypes are made of the student's, or none are."""
    anchors: Tensor
    """Labels of the labelled pixels that are valid for L_c, [N, H, W] or of the network's maps."""
    negatives: Chosen | None = None
    """Unreliable pixels of the whole batch, for the queues of L_c."""
    class_groups: Tensor | None = None
    """As in `Batch`."""
    weak_divisor: Tensor | None = None
    """Of L_w, over all ranks; none where there is no L_w."""
    judged_pixels: Tensor | None = None
    """[2], those with a label and those of the first view with a pseudo-label, over all ranks, for a discriminator."""

    def part(self, index: int, parts: int) -> StudentBatch:
        """Return one of `parts` equal shares of the images, with the divisors and sums of all."""
        if parts == 1:
            return self

        def share(maps: Tensor) -> Tensor:
            return maps.chunk(parts)[index]

        return self._replace(
            images=share(self.images),
            labels=share(self.labels),
            anchors=share(self.anchors),
            views=tuple(view.part(index, parts) for view in self.views),
        )


@torch.no_grad()
def make_targets(
    teacher: nn.Module,
    prototypes: Prototypes,
    batch: Batch,
    config: TrainConfig,
    context: StepContext,
    discriminator: Discriminator | None = None,
) -> StudentBatch:
    """Let the teacher label the unlabelled images, then make the streams' views of images and labels together.

    All ranks make one collective: a divisor of L_s, of L_w and of each stream, with a discriminator two numbers of
    pixels, and the numbers of `ClassSums` where prototypes are the teacher's. A histogram of entropies takes one more,
    and so do unreliable pixels.
    """
    numbers = config.loss.weights
    weights = None if numbers is None else send(torch.as_tensor(numbers), batch.labels.device)
    divisor = supervised_divisor(batch.labels, weights)
    if batch.unlabelled is None:
        counted = _judged_pixels(batch.labels, None, config)
        divisor, *judged_pixels = sum_over_ranks([divisor, *counted], context.world_size)
        whole = StudentBatch(batch.images, batch.labels, weights, (), divisor, None, batch.labels)
        return whole._replace(judged_pixels=judged_pixels[0]) if judged_pixels else whole
    targets, sums, anchors, negatives = _label(
        teacher, prototypes, batch, batch.unlabelled, config, context, discriminator
    )
    drawn = draw_views(teacher, batch.unlabelled, config, context) if context.draws is None else context.draws.streams
    weak = batch.weak if config.loss.lambda_w > 0 else None  # which the first stream alone is to agree with
    seen = [
        (*_augment(batch.unlabelled, targets, None if at else weak, config.strong_of(stream), draws.strong), draws.keep)
        for at, (stream, draws) in enumerate(zip(config.active_streams.values(), drawn, strict=True))
    ]
    threshold, kind = delta_u(config, context.progress(config.schedule.steps)), config.loss.unsupervised
    local = [
        divisor,
        *(unsupervised_divisor(each.logit_target, each.confidence, threshold, kind) for _, each, _, _ in seen),
        *(supervised_divisor(groups) for _, _, groups, _ in seen if groups is not None),
    ]  # fmt: skip
    counted = _judged_pixels(batch.labels, seen[0][1].logit_target if seen else None, config)
    reduced = sum_over_ranks([*local, *counted, *(sums or ())], context.world_size)
    divisors, totals = reduced[: len(local)], reduced[len(local) :]
    pixels = totals.pop(0) if counted else None
    views = tuple(View(*view, of_view) for view, of_view in zip(seen, divisors[1:], strict=False))
    total_sums = None if sums is None else ClassSums(*totals)
    return StudentBatch(
        batch.images, batch.labels, weights, views, divisors[0], total_sums, anchors, negatives, batch.class_groups,
        None if weak is None else divisors[-1], pixels,
    )  # fmt: skip


def _judged_pixels(labels: Tensor, pseudo: Tensor | None, config: TrainConfig) -> list[Tensor]:
    """Return this rank's share of `StudentBatch.judged_pixels`, or nothing where there is no discriminator."""
    if not config.uses_discriminator:
        return []
    labelled = supervised_divisor(labels)
    return [torch.stack([labelled, torch.zeros_like(labelled) if pseudo is None else supervised_divisor(pseudo)])]


def draw_views(
    network: nn.Module, unlabelled: Tensor, config: TrainConfig, context: StepContext
) -> tuple[StreamDraws, ...]:
    """Draw what the streams of a step need; of the network, only the widths of its features are read."""
    perturbed = any(stream.features != "none" for stream in config.active_streams.values())
    channels: Any = network.feature_channels if perturbed else ()
    return draw_streams(unlabelled, channels, config, *context[:4])


def draw_order(context: StepContext) -> int:
    """Draw by what the order of the pixels is scattered, in which unreliable ones are kept."""
    return derive_seed(context.seed, "unreliable", context.step) & 0xFFFFFFFF


def valid_labels(labels: Tensor, targets: Targets, threshold: float | Tensor, size: tuple[int, int]) -> Tensor:
    """Return [N + U, h, w]: labels of labelled pixels and of unlabelled ones whose indicator is above delta_w."""
    kept = torch.where(targets.indicator > threshold, targets.representation_target, IGNORE)
    return torch.cat([downsample_labels(labels, size), downsample_labels(kept, size)])


def map_size(maps: Tensor) -> tuple[int, int]:
    """Return height and width."""
    return maps.shape[-2], maps.shape[-1]


class _Labelling(NamedTuple):
    targets: Targets
    """Of the unlabelled images."""
    sums: ClassSums | None
    """This rank's, of the teacher's representations."""
    anchors: Tensor
    negatives: Chosen | None
    """As in `StudentBatch`."""


def _label(
    teacher: nn.Module,
    prototypes: Prototypes,
    batch: Batch,
    unlabelled: Tensor,
    config: TrainConfig,
    context: StepContext,
    discriminator: Discriminator | None,
) -> _Labelling:
    size = map_size(unlabelled)
    vetoing = (batch.weak, batch.class_groups) if config.css.veto else (None, None)
    if not config.uses_prototypes:
        output = forward(teacher, unlabelled, config)
        targets = judged_targets(logit_targets(output, size), output.logits, config, discriminator)
        targets = ignore_contradicted(_ignore_outside(targets, batch.inside), *vetoing)
        return _Labelling(_rank_entropy(targets, output.logits, config, context), None, batch.labels, None)
    from_teacher = config.ema.prototype_source == "teacher"
    output = forward(teacher, torch.cat([batch.images, unlabelled]) if from_teacher else unlabelled, config)
    on_unlabelled = output.of(slice(-unlabelled.shape[0], None))
    label_in_both_spaces = as_configured(pseudo_labels, config)
    labels = label_in_both_spaces(on_unlabelled, prototypes, config.css.indicator_temperature, size)
    targets = collaborate(labels, config, context.warming_up)
    targets = _ignore_outside(judged_targets(targets, on_unlabelled.logits, config, discriminator), batch.inside)
    targets = ignore_contradicted(targets, *vetoing)
    targets = _rank_entropy(targets, on_unlabelled.logits, config, context)
    if not from_teacher:
        return _Labelling(targets, None, batch.labels, None)
    threshold = delta_w(config, context.progress(config.schedule.steps))
    valid = valid_labels(batch.labels, targets, threshold, map_size(output.representations))
    sums = class_sums(output.representations, valid, config.num_classes, output.variances)
    if not config.uses_unreliable:
        return _Labelling(targets, sums, batch.labels, None)
    anchors, kept = _sure_and_unreliable(output, batch.labels, targets.indicator, config, context)
    sure = labels.confidence > config.unreliable.anchor_confidence
    return _Labelling(targets._replace(indicator=targets.indicator * sure), sums, anchors, kept)


def _rank_entropy(targets: Targets, logits: Tensor, config: TrainConfig, context: StepContext) -> Targets:
    """Let the share of pixels of which the teacher is as unsure be the confidence, the indicator, or both."""
    if not config.ranks_entropy:
        return targets
    entropy = as_configured(pixel_entropy, config)(upsample(logits, map_size(targets.logit_target)))
    shares = as_unsure(entropy, targets.logit_target != IGNORE, context.world_size)
    if config.thresholds.kind == "entropy_percentile":
        targets = targets._replace(confidence=shares)
    return targets._replace(indicator=shares) if config.uses_unreliable else targets


def _sure_and_unreliable(
    output: Dense, labels: Tensor, shares: Tensor, config: TrainConfig, context: StepContext
) -> tuple[Tensor, Chosen]:
    """Return the labels of labelled pixels of which the teacher is sure, [N, h, w], and the pixels for the queues.

    Args:
        output: the teacher's, of labelled and unlabelled images.
        labels: [N, H, W].
        shares: of `as_unsure`, [U, H, W].
        config: `unreliable`.
        context: step and rank.
    """
    representations, size = output.representations, map_size(output.representations)
    labels, shares, probs = downsample_labels(labels, size), downsample_labels(shares, size), output.logits.softmax(1)
    sure = own_class(probs[: len(labels)], labels) > config.unreliable.anchor_confidence
    unsure = (shares > 0) & (shares <= unreliable_share(config, context.progress(config.schedule.steps)))
    members = negatives(probs, labels, unsure, config.unreliable)
    counts, rank, ranks = (len(labels), len(shares)), context.rank, context.world_size
    firsts = (rank * counts[0], ranks * counts[0] + rank * counts[1])  # of all ranks' images, labelled ones come first
    images = torch.cat([torch.arange(count, device=sure.device) + at for count, at in zip(counts, firsts, strict=True)])
    pixels = images.unsqueeze(1) * (size[0] * size[1]) + torch.arange(size[0] * size[1], device=sure.device)
    drawn = context.draws and context.draws.order
    order = scattered(pixels.flatten(), draw_order(context) if drawn is None else drawn)
    chosen = choose_members(representations, members, order, config.unreliable.entries, rank, ranks)
    return torch.where(sure, labels, IGNORE), chosen


def _ignore_outside(targets: Targets, inside: Tensor | None) -> Targets:
    """Ignore the pixels around an image: 255, and an indicator and confidence of 0."""
    return targets if inside is None else _kept(targets, inside, inside)


def ignore_contradicted(targets: Targets, weak: Tensor | None, class_groups: Tensor | None) -> Targets:
    """Ignore, in each space, the labels that contradict weak ones (`css.veto`); without weak labels, none.

    Args:
        targets: Of the unlabelled images.
        weak: [U, H, W], groups of classes; none: nothing is known.
        class_groups: [K], the group of each class.
    """
    if weak is None or class_groups is None:
        return targets
    for_logits, for_representations = (~contradicted(label, weak, class_groups) for label in targets[:2])
    return _kept(targets, for_logits, for_representations)


def _kept(targets: Targets, for_logits: Tensor, for_representations: Tensor) -> Targets:
    """Keep the pixels of each space where its [U, H, W] is true; others are 255, of confidence and indicator 0."""
    return Targets(
        torch.where(for_logits, targets.logit_target, IGNORE),
        torch.where(for_representations, targets.representation_target, IGNORE),
        targets.confidence * for_logits,
        targets.indicator * for_representations,
    )


def _augment(
    unlabelled: Tensor, targets: Targets, weak: Tensor | None, config: StrongAugmentConfig, draws: StrongDraws | None
) -> tuple[Tensor, Targets, Tensor | None]:
    """Return a view of the images, their targets and groups of classes; without draws, the weak one."""
    if draws is None:
        return unlabelled, targets, weak
    maps = apply_strong(
        {
            "image": unlabelled,
            "label": targets.logit_target,
            "label_representation": targets.representation_target,
            "confidence": targets.confidence,
            "indicator": targets.indicator,
            **({} if weak is None else {WEAK: weak}),
        },
        config,
        draws,
    )
    targets = Targets(maps["label"], maps["label_representation"], maps["confidence"], maps["indicator"])
    return maps["image"], targets, maps.get(WEAK)
