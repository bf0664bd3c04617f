"""Training step of CSS: from a batch to named losses, statistics and the next prototypes. It writes nothing.

The teacher first labels the whole batch (`trainers.targets`); the student then sees it, at once or in parts whose
gradients add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.compute import as_configured, as_network, forward
from trainers.config import IGNORE, TrainConfig
from trainers.config.streams import loss_name
from trainers.css.adversary import adversarial_losses, as_maps
from trainers.css.bank import Bank, BankDraws, admitted, bank_loss, choose, draw_bank, empty_bank, put
from trainers.css.contrast import PixelPool, SampleDraws, Variances, build_pool, contrastive_loss, draw_samples
from trainers.css.prototypes import (
    ClassSums,
    Prototypes,
    class_sums,
    cosine_similarity,
    own_class,
    similarity_probs,
    update_prototypes,
)
from trainers.css.pseudo_labels import Targets, downsample_labels, upsample
from trainers.css.supervision import (
    LossSum,
    confident_pixel_loss,
    hard_example_loss,
    image_share_loss,
    supervised_loss,
)
from trainers.css.weak import partial_label_loss
from trainers.distributed import sum_over_ranks
from trainers.models.discriminator import Judgement
from trainers.models.heads import FINEST, Dense
from trainers.models.pair import Pair, members
from trainers.randomness import generator, seeded
from trainers.schedules import delta_u, delta_w
from trainers.streams import Keep
from trainers.targets import Batch, StepContext, StudentBatch, make_targets, map_size, valid_labels


class StepOutput(NamedTuple):
    """Losses, statistics and prototypes of a step, or of a part of it.

    Losses are this rank's and part's: their sum over ranks and parts is the loss of the global batch.
    """

    losses: dict[str, Tensor]
    """Unweighted scalars: supervised, of each stream (`loss_name`), those of the auxiliary head, weak, contrast, bank,
    adversarial on labelled and on unlabelled images, discriminator; those that the config has."""
    statistics: dict[str, Tensor]
    """Scalars without gradient, the same on every rank; their sum over the parts is that of the global batch."""
    prototypes: Prototypes
    """After this step, as far as its parts were seen."""
    bank: Bank | None = None
    """Likewise; none where no loss reads it."""

    def weighted(self, weights: Mapping[str, float]) -> Tensor:
        """Return the sum of the losses, each times its weight (Eq. 6)."""
        return torch.stack([weights[name] * value for name, value in self.losses.items()]).sum()


def added_up(parts: Sequence[StepOutput]) -> StepOutput:
    """Return the output of a step that was taken in these parts."""
    losses, statistics = (
        {name: torch.stack([values[name] for values in of_parts]).sum() for name in of_parts[0]}
        for of_parts in ([part.losses for part in parts], [part.statistics for part in parts])
    )
    return parts[-1]._replace(losses=losses, statistics=statistics)


def css_step(
    student: nn.Module,
    teacher: nn.Module,
    prototypes: Prototypes,
    batch: Batch,
    config: TrainConfig,
    context: StepContext,
    bank: Bank | None = None,
    discriminator: nn.Module | None = None,
) -> Iterator[StepOutput]:
    """Yield the step's losses (Eq. 6 to 9) and the next prototypes (Eq. 2, 3) in `schedule.accumulate` parts.

    L_u is of every stream, L_c and L_w of the first one. Without a bank, that of a config with one is empty.

    Go backward through a part before asking for the next. Parts are to a rank what ranks are to the batch: L_s without
    OHEM, L_u and prototypes of the teacher's representations are divided by sums over the whole batch, so parts add up
    to what one part computes; BatchNorm, the divisor of OHEM and the samples of L_c and of the bank are a part's own.

    Nothing here waits for the device: no `.item()`, no data-dependent shapes. Ranks make two collectives for a step of
    one part: the numbers of `ClassSums` with the divisors of L_s, of L_w and of each stream, and K counts of hard
    pixels with two more sums; a bank takes a third, and so do entropies that are ranked.

    A discriminator, which a config that `uses_discriminator` must have, sees the labelled images and the first stream.
    One backward serves both: no gradient of the student's losses reaches it, and none of its own the student.

    Of two students each takes the step in turn, on the same images, with the other one's teacher for its labels: their
    losses add up, and statistics are means.
    """
    if isinstance(student, Pair) and isinstance(teacher, Pair):
        for own, other in zip(members(student), reversed(members(teacher)), strict=True):
            for part in css_step(own, other, prototypes, batch, config, context, bank):
                yield part._replace(statistics={name: value / 2 for name, value in part.statistics.items()})
        return
    bare: Any = discriminator.module if isinstance(discriminator, DistributedDataParallel) else discriminator
    student_batch = make_targets(teacher, prototypes, batch, config, context, bare)
    parts = config.schedule.accumulate
    bank = empty_bank(config, batch.images.device) if bank is None else bank
    if bank is not None and student_batch.negatives is not None:
        bank = put(bank, student_batch.negatives)
    carried = _Carried(student_batch.sums, bank)
    for index in range(parts):
        local = index < parts - 1
        with _gradients_stay_local(student, local), _gradients_stay_local(discriminator, local):
            part, carried = _part_output(
                student, student_batch.part(index, parts), prototypes, carried, config, context, index, discriminator
            )
            yield part


class _Carried(NamedTuple):
    """What goes from part to part."""

    sums: ClassSums | None
    """Over ranks and parts so far, of which prototypes are made."""
    bank: Bank | None


def _part_output(
    student: nn.Module,
    student_batch: StudentBatch,
    prototypes: Prototypes,
    carried: _Carried,
    config: TrainConfig,
    context: StepContext,
    index: int,
    discriminator: nn.Module | None,
) -> tuple[StepOutput, _Carried]:
    """Return the output of one part, and what goes on to the next."""
    sums, bank = carried
    labelled, parts = student_batch.images.shape[0], config.schedule.accumulate
    with _skipped_blocks(student_batch.images, config, context, index):
        output = _student_output(student, student_batch, config)
    logits = upsample(output.logits, map_size(student_batch.images))
    # A split, whose gradient is put together at once; of slices, each would fill a map of zeros.
    on_labelled, *on_views = torch.split(logits, [labelled, *(len(view.images) for view in student_batch.views)])

    supervised = _supervised(on_labelled, student_batch.labels, student_batch.class_weights, config)
    passed = context.progress(config.schedule.steps)
    unsupervised = _unsupervised_losses(on_views, student_batch, config, context)
    auxiliary = {} if output.auxiliary is None else _auxiliary(output.auxiliary, student_batch, config, context)
    output = _without_later_views(output, student_batch)
    adversarial: dict[str, Tensor] = {}
    judged: Tensor | None = None
    if discriminator is not None and config.uses_discriminator:
        seen = torch.cat([on_labelled, *on_views[:1]])
        adversarial, judged = _adversarial(seen, student_batch, discriminator, config)
    pixels = None
    if config.uses_prototypes:
        pixels = _contrast_pixels(output, judged, student_batch, prototypes, config, passed)
    reduced = _over_ranks(supervised, pixels, config, context)
    divisor = student_batch.supervised_divisor if reduced.supervised is None else reduced.supervised * parts
    losses = {"supervised": supervised.total / _or_one(divisor), **unsupervised, **auxiliary, **adversarial}
    statistics = {"share/labelled": divisor / (student_batch.labels.numel() * parts**2 * context.world_size)}
    for stream, view in zip(config.active_streams, student_batch.views, strict=True):
        all_pixels = view.targets.confidence.numel() * parts * context.world_size
        statistics[f"share/{loss_name(stream)}"] = view.divisor / (all_pixels * parts)

    if student_batch.weak_divisor is not None and student_batch.class_groups is not None:
        weak, groups = student_batch.views[0].weak, student_batch.class_groups
        assert weak is not None  # noqa: S101 - there is a divisor of it
        of_weak = as_configured(partial_label_loss, config)(on_views[0], weak, groups)
        losses["weak"] = of_weak.total / _or_one(student_batch.weak_divisor)
        statistics["share/weak"] = student_batch.weak_divisor / (weak.numel() * parts**2 * context.world_size)

    after = prototypes
    if pixels is not None and reduced.hard is not None and reduced.valid is not None:
        sums = sums if reduced.sums is None else _add(sums, reduced.sums)
        assert sums is not None  # noqa: S101 - of the teacher's representations, or of the student's
        after = update_prototypes(prototypes, sums, config.ema.prototype_momentum)
        statistics["share/valid"] = reduced.valid / (pixels.valid.numel() * parts * context.world_size)
        statistics["share/hard"] = reduced.hard.sum() / (reduced.valid.clamp(min=1) * parts)
    if pixels is not None and reduced.hard is not None and sums is not None and config.loss.lambda_c > 0:
        losses["contrast"] = _contrast(output, pixels.pool, after, sums, reduced.hard, config, context, index, bank)
    else:
        # Heads of the representation have no loss; a graph of weight zero keeps gradients defined on every rank.
        for maps in (output.representations, output.variances):
            if maps is not None:
                losses["supervised"] = losses["supervised"] + maps.sum() * 0.0
    if bank is not None and config.bank.weight > 0:
        losses["bank"], bank = _bank(output, student_batch.labels, bank, config, context, index)
    return StepOutput(losses, statistics, after, bank), _Carried(sums, bank)


def _student_output(student: nn.Module, student_batch: StudentBatch, config: TrainConfig) -> Dense:
    """Return the student's output for the labelled images and the views of each stream, [N + U + ..., ...]."""
    labelled, views = (student_batch.images, None), [(view.images, view.keep) for view in student_batch.views]
    if not views or config.schedule.joint_forward:
        return _forward_together(student, [labelled, *views], config)
    apart = (_forward_together(student, seen, config) for seen in ([labelled], views))
    both = zip(*apart, strict=True)
    return Dense(*(None if maps[0] is None else torch.cat(maps) for maps in both))  # type: ignore[arg-type]


def _forward_together(student: nn.Module, seen: Sequence[tuple[Tensor, Keep | None]], config: TrainConfig) -> Dense:
    """Return the student's output for images in one batch, each group of them with what it keeps of the features."""
    if len(seen) == 1:
        return forward(student, seen[0][0], config, seen[0][1])
    some = next((keep for _, keep in seen if keep is not None), ())
    joined = tuple(
        torch.cat([level.new_ones(len(images), level.shape[1]) if keep is None else keep[at] for images, keep in seen])
        for at, level in enumerate(some)
    )
    return forward(student, torch.cat([images for images, _ in seen]), config, joined or None)


def _without_later_views(output: Dense, student_batch: StudentBatch) -> Dense:
    """Return the output for the labelled images and the first stream, which the contrastive loss reads."""
    if len(student_batch.views) < 2:
        return output
    return output.of(slice(len(student_batch.images) + len(student_batch.views[0].images)))


def _skipped_blocks(
    images: Tensor, config: TrainConfig, context: StepContext, index: int
) -> AbstractContextManager[None]:
    """Let stochastic depth draw as a function of the step, the rank and the part."""
    if config.model.drop_path == 0:
        return nullcontext()
    own = context.rank + context.world_size * index
    return seeded(context.seed, "drop_path", context.step, own, device=images.device)


class _Pixels(NamedTuple):
    """The pixels of the contrastive loss and of the student's prototypes."""

    valid: Tensor
    """[N + U, h, w], 255 where a pixel is not valid."""
    pool: PixelPool
    sums: ClassSums | None
    """Of the student's representations; none where prototypes are made of the teacher's."""


class _Reduced(NamedTuple):
    """Sums over the ranks."""

    supervised: Tensor | None
    """Divisor of this part's L_s; none where the `StudentBatch` holds the whole batch's."""
    hard: Tensor | None
    """[K]."""
    valid: Tensor | None
    """Scalar."""
    sums: ClassSums | None


@torch.no_grad()
def _contrast_pixels(
    output: Dense,
    judged: Tensor | None,
    student_batch: StudentBatch,
    prototypes: Prototypes,
    config: TrainConfig,
    passed: float | Tensor,
) -> _Pixels:
    targets = student_batch.views[0].targets  # prototypes are used with unlabelled images only
    valid = valid_labels(student_batch.anchors, targets, delta_w(config, passed), map_size(output.representations))
    hard = valid != IGNORE if config.uses_unreliable else _hard_pixels(output, judged, valid, prototypes, config)
    pool = build_pool(valid, hard, config.num_classes)
    from_teacher = config.ema.prototype_source == "teacher"
    if from_teacher:
        return _Pixels(valid, pool, None)
    sums = class_sums(output.representations, valid, config.num_classes, output.variances)
    return _Pixels(valid, pool, sums)


def _hard_pixels(
    output: Dense, judged: Tensor | None, valid: Tensor, prototypes: Prototypes, config: TrainConfig
) -> Tensor:
    """Return [N + U, h, w] bool: where the student's indicator of the pixel's own class is below delta_s.

    The prototypes are those before this step, as in the pseudo-labels; before any exists, all pixels are hard.
    """
    if config.css.indicator == "discriminator":
        assert judged is not None  # noqa: S101 - `css_step` must have a discriminator
        return downsample_labels(judged.sigmoid(), map_size(valid)) < config.delta_s_probability
    if config.css.indicator == "confidence":
        probs = output.logits.softmax(dim=1)
    else:
        cosines = cosine_similarity(output.representations, prototypes)
        probs = similarity_probs(cosines, prototypes.seen, config.css.indicator_temperature)
    return own_class(probs, valid) < config.delta_s_probability


def _over_ranks(supervised: LossSum, pixels: _Pixels | None, config: TrainConfig, context: StepContext) -> _Reduced:
    """Sum over the ranks, in one message, what no rank knows before the student's forward."""
    mining = config.loss.supervised == "ohem"
    local = [supervised.divisor] if mining else []
    if pixels is not None:
        local += [pixels.pool.hard, pixels.pool.counts.sum(), *(pixels.sums or ())]
    totals = iter(sum_over_ranks(local, context.world_size) if local else [])
    divisor = next(totals) if mining else None
    if pixels is None:
        return _Reduced(divisor, None, None, None)
    hard, valid = next(totals), next(totals)
    return _Reduced(divisor, hard, valid, None if pixels.sums is None else ClassSums(next(totals), next(totals)))


def _supervised(logits: Tensor, labels: Tensor, weights: Tensor | None, config: TrainConfig) -> LossSum:
    loss = config.loss
    if loss.supervised == "ohem":
        ohem_loss = as_configured(hard_example_loss, config)
        return ohem_loss(logits, labels, loss.ohem_threshold, loss.ohem_min_kept, weights, loss.ohem_scope)
    return as_configured(supervised_loss, config)(logits, labels, weights)


def _unsupervised(logits: Tensor, targets: Targets, threshold: float | Tensor, config: TrainConfig) -> LossSum:
    on_pixels = image_share_loss if config.loss.unsupervised == "image_share" else confident_pixel_loss
    return as_configured(on_pixels, config)(logits, targets.logit_target, targets.confidence, threshold)


def _unsupervised_losses(
    on_views: Sequence[Tensor], student_batch: StudentBatch, config: TrainConfig, context: StepContext
) -> dict[str, Tensor]:
    """Return L_u of logits [U, K, H, W] of each stream's view, by the name of the loss."""
    threshold, losses = delta_u(config, context.progress(config.schedule.steps)), {}
    for stream, view, predicted in zip(config.active_streams, student_batch.views, on_views, strict=True):
        divisor = _or_one(view.divisor)
        loss = _unsupervised(predicted, view.targets, threshold, config).total / divisor
        if config.loss.unsupervised == "pixel_by_share":
            loss = loss * (view.targets.confidence.numel() * config.schedule.accumulate * context.world_size / divisor)
        losses[loss_name(stream)] = loss
    return losses


def _auxiliary(
    logits: Tensor, student_batch: StudentBatch, config: TrainConfig, context: StepContext
) -> dict[str, Tensor]:
    """Return L_s of the auxiliary head, by cross-entropy of all labelled pixels, and its L_u where it has one."""
    counts = [len(student_batch.images), *(len(view.images) for view in student_batch.views)]
    read = counts if config.loss.auxiliary_targets == "all" else counts[:1]
    maps = upsample(logits[: sum(read)], map_size(student_batch.images))
    on_labelled, *on_views = torch.split(maps, read)
    of_labels = as_configured(supervised_loss, config)(on_labelled, student_batch.labels, student_batch.class_weights)
    losses = {"auxiliary": of_labels.total / _or_one(student_batch.supervised_divisor)}
    if on_views:
        unsupervised = _unsupervised_losses(on_views, student_batch, config, context)
        losses |= {f"auxiliary_{name}": loss for name, loss in unsupervised.items()}
    return losses


def _adversarial(
    logits: Tensor, student_batch: StudentBatch, discriminator: nn.Module, config: TrainConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses of student and discriminator on labelled images and first views, and its logits of these.

    Args:
        logits: the student's, [N + U, K, H, W].
        student_batch: labels and pseudo-labels, and their numbers in the whole batch.
        discriminator: as a step calls it.
        config: `adversary`.
    """
    labels, pixels = student_batch.labels, student_batch.judged_pixels
    assert pixels is not None  # noqa: S101 - there is a discriminator
    targets = torch.cat([labels, *(view.targets.logit_target for view in student_batch.views[:1])])
    with as_network(config, logits.device):
        judged: Judgement = discriminator(logits.softmax(dim=1), as_maps(labels, config.num_classes))
    made = as_configured(adversarial_losses, config)(judged, targets, pixels)
    losses = {"discriminator": made.discriminator}
    if config.adversary.weight_labelled > 0:
        losses["adversarial"] = made.labelled
    if config.adversary.weight_unlabelled > 0:
        losses["adversarial_unlabelled"] = made.unlabelled
    return losses, judged.for_student.detach().squeeze(1)


def _contrast(
    output: Dense,
    pool: PixelPool,
    prototypes: Prototypes,
    sums: ClassSums,
    hard: Tensor,
    config: TrainConfig,
    context: StepContext,
    index: int,
    bank: Bank | None,
) -> Tensor:
    """Return this rank's and part's share of L_c: anchors are its own pixels, and so are negatives out of no queue."""
    parts = config.schedule.accumulate
    drawn = context.draws and context.draws.contrast
    draws = drawn or draw_contrast(config, context, output.representations.device, index)
    per_class = contrastive_loss(
        output.representations, pool, prototypes, hard, config.loss, draws, context.world_size * parts,
        bank if config.uses_unreliable else None,
        None if output.variances is None else Variances(output.variances, sums.variances),
    )  # fmt: skip
    # Only classes that have hard pixels count; the published code divides by all classes present.
    classes = ((hard > 0) & prototypes.seen).sum().clamp(min=1)
    return per_class.sum() / (classes * parts)


def _bank(
    output: Dense, labels: Tensor, bank: Bank, config: TrainConfig, context: StepContext, index: int
) -> tuple[Tensor, Bank]:
    """Return this rank's and part's share of the bank's loss on the labelled images, and the bank with their pixels."""
    logits, representations, *_ = output.of(slice(len(labels)))
    size, world_size = map_size(representations), context.world_size
    classes = admitted(logits, downsample_labels(labels, size), config)
    drawn = context.draws and context.draws.bank
    draws = drawn or draw_for_bank(labels, config, context, index)
    chosen = choose(representations, classes, draws, config, context.rank, world_size)
    return bank_loss(chosen, bank, draws, config.bank) / config.schedule.accumulate, put(bank, chosen)


def draw_for_bank(labels: Tensor, config: TrainConfig, context: StepContext, index: int = 0) -> BankDraws:
    """Draw which of the pixels of a part, of which only the size and the device are read, go into the bank."""
    height, width = map_size(labels)
    size = -(-height // FINEST), -(-width // FINEST)
    draws = generator(context.seed, "bank", context.step, index)
    return draw_bank(labels, size, config, draws, context.rank, context.world_size)


def draw_contrast(config: TrainConfig, context: StepContext, device: torch.device, index: int = 0) -> SampleDraws:
    """Draw the samples of L_c for a part of a rank's step."""
    draws = generator(context.seed, "contrast", context.step, context.rank + context.world_size * index, device=device)
    ranks = context.world_size * config.schedule.accumulate
    return draw_samples(config.num_classes, config.loss, draws, device, ranks)


def _gradients_stay_local(network: nn.Module | None, local: bool) -> AbstractContextManager[None]:
    """Keep ranks from averaging gradients that more parts will be added to."""
    if local and isinstance(network, DistributedDataParallel):
        context: AbstractContextManager[None] = network.no_sync()
        return context
    return nullcontext()


def _add(sums: ClassSums | None, more: ClassSums) -> ClassSums:
    return more if sums is None else ClassSums(sums.sums + more.sums, sums.counts + more.counts)


def _or_one(divisor: Tensor) -> Tensor:
    """Return the divisor, or one where it is zero: then the sum above it is zero too."""
    return torch.where(divisor > 0, divisor, torch.ones_like(divisor))
