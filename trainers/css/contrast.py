"""Contrastive loss (Eq. 9), without loops over queries or pixels.

Fixed shapes and no look at the data from the host: sampling goes through one sort and uniform numbers, so the step
never waits for the device and can be compiled. Negatives are looked up in blocks of a fixed size, used and dropped: the
loss takes little memory, whatever the number of classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.config import IGNORE, LossConfig
from trainers.css.bank import Bank
from trainers.css.likelihood import Gaussians, likelihood_score, log_sum_exp_of_scores
from trainers.css.prototypes import Prototypes

_BLOCK_NUMBERS = 2**21
"""Numbers in a block of negatives, 8 MiB in float32: small enough for a CPU's cache."""
_CUDA_BLOCK_NUMBERS = 2**25
"""On CUDA, 128 MiB in float32: large enough for launches to take no time beside the work."""

_SHORTEST = 1e-12
"""Length that representations are taken to have at least, as in `F.normalize`."""


class PixelPool(NamedTuple):
    """The valid pixels of a rank, sorted by class, hard ones first."""

    order: Tensor
    """[P] int64, pixel numbers; class c begins at offsets[c], its hard pixels before its easy ones."""
    offsets: Tensor
    """[K] int64."""
    counts: Tensor
    """[K] int64, valid pixels of each class."""
    hard: Tensor
    """[K] int64, hard pixels of each class."""


class SampleDraws(NamedTuple):
    """Uniform numbers in [0, 1), from which anchors and negatives are chosen."""

    anchors: Tensor
    """[K, Q]."""
    negatives: Tensor
    """[2, K, groups x M]: of the class, and of the pixel in it."""


class Variances(NamedTuple):
    """Variances of representations that are Gaussians."""

    pixels: Tensor
    """[N, D, h, w]."""
    prototypes: Tensor
    """[K, D]."""


def draw_samples(
    num_classes: int, config: LossConfig, generator: torch.Generator, device: torch.device, world_size: int = 1
) -> SampleDraws:
    """Draw what `contrastive_loss` chooses its samples by.

    Args:
        num_classes: K.
        config: queries, negatives, negative_groups.
        generator: on the device.
        device: of the representations.
        world_size: ranks among which the anchors are divided.
    """
    groups = config.negative_groups
    queries = -(-config.queries // (world_size * groups))
    anchors = torch.rand(num_classes, groups * queries, device=device, generator=generator)
    return SampleDraws(
        anchors, torch.rand(2, num_classes, groups * config.negatives, device=device, generator=generator)
    )


def build_pool(label: Tensor, hard: Tensor, num_classes: int) -> PixelPool:
    """Sort pixels by class.

    Args:
        label: [N, h, w] int64, 255 where a pixel is not valid.
        hard: [N, h, w] bool, whose indicator is below delta_s.
        num_classes: K.
    """
    label, hard = label.flatten(), hard.flatten()
    key = torch.where(label == IGNORE, 2 * num_classes, 2 * label + (~hard).long())
    order = torch.argsort(key, stable=True)
    ones = torch.ones_like(key)
    tally = torch.zeros(2 * num_classes + 1, dtype=torch.long, device=key.device).scatter_add_(0, key, ones)
    by_class = tally[: 2 * num_classes].view(num_classes, 2)
    counts = by_class.sum(1)
    return PixelPool(order, counts.cumsum(0) - counts, counts, by_class[:, 0])


def contrastive_loss(
    representations: Tensor,
    pool: PixelPool,
    prototypes: Prototypes,
    hard_counts: Tensor,
    config: LossConfig,
    draws: torch.Generator | SampleDraws,
    world_size: int = 1,
    queues: Bank | None = None,
    variances: Variances | None = None,
) -> Tensor:
    """Tell each class's hard pixels from pixels of other classes (Eq. 9): InfoNCE with the prototype as positive.

    Anchors of class c are drawn uniformly, with replacement, from its hard pixels; each negative is a class drawn with
    probability softmax(cos(prototype_c, prototype_k) / tau) over the other classes present, then a uniform pixel of it.
    Groups of anchors share their negatives, which leaves the expectation of loss and gradient as it is. Gradients reach
    the anchors only.

    Anchors and negatives of a rank are its own pixels: representations never cross the network. A rank's anchors of a
    class stand for its share of the class's hard pixels, so the sum over ranks is unbiased in the anchors.

    Args:
        representations: [N, D, h, w] of the student.
        pool: the valid pixels of this rank.
        prototypes: [K, D], already updated with this step.
        hard_counts: [K], hard pixels of each class over all ranks.
        config: queries, negatives, negative_groups, temperature.
        draws: a generator on the device of the representations, or what was drawn from it.
        world_size: ranks among which the anchors are divided.
        queues: of each class's negatives, drawn uniformly from its queue; none: they are pixels of other classes.
        variances: of Gaussians, which take the mutual likelihood score (PRCL) in place of every cosine and have no
            queues; none: representations are points.

    Returns:
        [K], this rank's part of the mean over each class's anchors (their sum over the ranks is that mean); zero, with
        a gradient of zero, for classes without hard pixels, without a prototype or without negatives.
    """
    num_classes, dim = prototypes.values.shape
    if not isinstance(draws, SampleDraws):
        draws = draw_samples(num_classes, config, draws, representations.device, world_size)
    groups = config.negative_groups
    queries = draws.anchors.shape[1] // groups
    pixels, tau = _rows(representations), config.temperature
    directions = F.normalize(prototypes.values, dim=1).detach()

    # Of hard pixels; of any pixel where a class has none, which is weighted zero below.
    anchor_at = _nth_pixel(pool, draws.anchors, pool.offsets.unsqueeze(1), pool.hard.unsqueeze(1)).flatten()
    anchors = F.normalize(pixels.index_select(0, anchor_at), dim=1).view(num_classes, groups * queries, dim)
    if queues is None:
        nearness = _scores(directions, None if variances is None else variances.prototypes) / tau
        negative_at, has_negatives = _choose_negatives(pool, nearness, prototypes.seen, draws)
        negatives = pixels
    else:
        negative_at, has_negatives = _choose_from_queues(queues, draws)
        negatives = queues.values.flatten(0, 1)
    negative_at, grouped = negative_at.view(num_classes * groups, -1), (num_classes * groups, queries, dim)
    if variances is None:
        anchors = anchors / tau
        positive = torch.bmm(anchors, directions.unsqueeze(2)).squeeze(2)
        against = _log_sum_exp(anchors.view(grouped), negatives, negative_at).view_as(positive)
    else:
        spreads = _rows(variances.pixels)
        of_anchors = spreads.index_select(0, anchor_at).view_as(anchors)
        own = Gaussians(directions.unsqueeze(1), variances.prototypes.unsqueeze(1))
        positive = likelihood_score(Gaussians(anchors, of_anchors), own) / tau
        queried = Gaussians(anchors.view(grouped), of_anchors.view(grouped))
        against = log_sum_exp_of_scores(
            queried, Gaussians(pixels, spreads), negative_at, tau, _block_numbers(pixels)
        ).view_as(positive)
    per_class = (torch.logaddexp(positive, against) - positive).mean(dim=1)

    active = (hard_counts > 0) & prototypes.seen & has_negatives
    share = pool.hard / hard_counts.clamp(min=1)
    return torch.where(active, per_class * share, torch.zeros_like(per_class))


def _rows(maps: Tensor) -> Tensor:
    """Return maps [N, D, h, w] a row a pixel."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _scores(directions: Tensor, variances: Tensor | None) -> Tensor:
    """Return [K, K], how near prototypes [K, D] are to each other."""
    if variances is None:
        return directions @ directions.T
    here, there = (Gaussians(directions.unsqueeze(at), variances.unsqueeze(at)) for at in (1, 0))
    return likelihood_score(here, there)


def _block_numbers(pixels: Tensor) -> int:
    return _CUDA_BLOCK_NUMBERS if pixels.device.type == "cuda" else _BLOCK_NUMBERS


def _log_sum_exp(anchors: Tensor, pixels: Tensor, negative_at: Tensor) -> Tensor:
    """Return [B, Q], log of the sum over a group's negatives n of exp(anchor . n / |n|).

    Gradients reach the anchors only.

    Args:
        anchors: [B, Q, D], of B groups, of length 1 / temperature.
        pixels: [P, D], of any length.
        negative_at: [B, M], pixel numbers of each group's negatives.
    """
    result: Tensor = _LogSumExp.apply(anchors, pixels.detach(), negative_at)
    return result


class _LogSumExp(torch.autograd.Function):
    """`_log_sum_exp`, whose gradient is computed in the forward pass, while a block of negatives is in memory.

    d/d anchor = sum over n of softmax(anchor . n / |n|) n / |n|: as large as the anchors, where negatives kept for a
    backward of their own would be M / Q times as large. Negatives are not divided by their lengths, cosines are.
    """

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, pixels: Tensor, negative_at: Tensor) -> Tensor:
        negatives, dim = negative_at.shape[1], anchors.shape[2]
        block = max(1, _block_numbers(pixels) // (negatives * dim))
        lengths = torch.linalg.vector_norm(pixels, dim=1).clamp(min=_SHORTEST)
        sums, means = [], []
        for queries, at in zip(torch.split(anchors, block), torch.split(negative_at, block), strict=True):
            drawn = pixels.index_select(0, at.flatten()).view(-1, negatives, dim)
            length = lengths[at].unsqueeze(1)
            logits = torch.bmm(queries, drawn.transpose(1, 2)).div_(length)
            log_sum = logits.logsumexp(dim=2, keepdim=True)
            means.append(torch.bmm(logits.sub_(log_sum).exp_().div_(length), drawn))
            sums.append(log_sum)
        ctx.save_for_backward(torch.cat(means))
        return torch.cat(sums).squeeze(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (means,) = ctx.saved_tensors
        return gradients[0].unsqueeze(2) * means, None, None


def _choose_negatives(pool: PixelPool, nearness: Tensor, seen: Tensor, draws: SampleDraws) -> tuple[Tensor, Tensor]:
    """Return pixel numbers [K, groups * M] of other classes, drawn by the softmax of their nearness [K, K].

    And [K] whether a class has any.
    """
    num_classes = nearness.shape[0]
    others = ~torch.eye(num_classes, dtype=torch.bool, device=nearness.device)
    allowed = others & (seen & (pool.counts > 0)).unsqueeze(0)
    has_any = allowed.any(dim=1)
    logits = nearness.masked_fill(~allowed, float("-inf"))
    probs = torch.where(has_any.unsqueeze(1), logits.softmax(dim=1), torch.full_like(logits, 1 / num_classes))
    of_class, of_pixel = draws.negatives
    cumulative = probs.cumsum(dim=1)
    # Kept just inside the last step, where rounding could otherwise pick a class of probability zero.
    target = of_class * cumulative[:, -1:] * (1 - 1e-6)
    classes = torch.searchsorted(cumulative, target, right=True).clamp(max=num_classes - 1)
    return _nth_pixel(pool, of_pixel, pool.offsets[classes], pool.counts[classes]), has_any


def _choose_from_queues(queues: Bank, draws: SampleDraws) -> tuple[Tensor, Tensor]:
    """Return places [K, groups * M] in the rows of all queues, of each class in its own, and [K] whether it has any."""
    count, size, _ = queues.values.shape
    held = queues.entered.clamp(max=size).unsqueeze(1)
    nth = torch.minimum((draws.negatives[1] * held).long(), (held - 1).clamp(min=0))
    return nth + torch.arange(count, device=nth.device).unsqueeze(1) * size, queues.entered > 0


def _nth_pixel(pool: PixelPool, uniform: Tensor, offset: Tensor, count: Tensor) -> Tensor:
    nth = torch.minimum((uniform * count).long(), (count - 1).clamp(min=0))
    return pool.order[(offset + nth).clamp(max=pool.order.shape[0] - 1)]
