"""Pixels as Gaussians, and their mutual likelihood score (PRCL: Xie et al., AAAI 2023, arXiv 2210.14670).

A Gaussian has a mean of length 1 and a variance for each of its D numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Gaussians(NamedTuple):
    """Gaussians with independent numbers."""

    means: Tensor
    """[..., D], of length 1."""
    variances: Tensor
    """[..., D], above 0."""


def likelihood_score(one: Gaussians, other: Gaussians) -> Tensor:
    """Return the mutual likelihood score [...] of Gaussians that broadcast: how likely both are of the same point.

    -1/2 of the mean over D of (m - m')^2 / (v + v') + log(v + v'), as published: a mean where the log likelihood is a
    sum, and without its constant.
    """
    variance = one.variances + other.variances
    score: Tensor = -0.5 * ((one.means - other.means).square() / variance + variance.log()).mean(dim=-1)
    return score


def log_sum_exp_of_scores(
    anchors: Gaussians, pixels: Gaussians, negative_at: Tensor, temperature: float | Tensor, numbers: int
) -> Tensor:
    """Return [B, Q], log of the sum over a group's negatives of exp(score / temperature).

    Gradients reach the anchors only.

    Args:
        anchors: [B, Q, D], of B groups.
        pixels: [P, D], means of any length.
        negative_at: [B, M], pixel numbers of each group's negatives.
        temperature: of the softmax.
        numbers: that a block of pairs of anchor and negative holds at most, or those of one group.
    """
    means, variances = pixels.means.detach(), pixels.variances.detach()
    result: Tensor = _LogSumExpOfScores.apply(*anchors, means, variances, negative_at, temperature, numbers)
    return result


class _LogSumExpOfScores(torch.autograd.Function):
    """`log_sum_exp_of_scores`, whose gradient is computed in the forward pass, while a block of pairs is in memory.

    The sum of variances differs from pair to pair, so that no matrix product has the scores. Kept for a backward of
    their own, pairs would take M times the memory of the anchors.
    """

    @staticmethod
    def forward(
        ctx: Any, means: Tensor, variances: Tensor, of_pixels: Tensor, spreads: Tensor, negative_at: Tensor,
        temperature: float | Tensor, numbers: int,
    ) -> Tensor:  # fmt: skip
        (_, queries, dim), negatives = means.shape, negative_at.shape[1]
        block = max(1, numbers // (queries * negatives * dim))
        sums, by_mean, by_variance = [], [], []
        for mean, variance, at in zip(
            *(torch.split(each, block) for each in (means, variances, negative_at)), strict=True
        ):
            drawn = (-1, 1, negatives, dim)
            other = F.normalize(of_pixels.index_select(0, at.flatten()), dim=1).view(drawn)
            precision = (variance.unsqueeze(2) + spreads.index_select(0, at.flatten()).view(drawn)).reciprocal()
            difference = mean.unsqueeze(2) - other
            pull = difference * precision
            logits = (difference.mul_(pull) - precision.log()).mean(dim=3) * -0.5 / temperature
            log_sum = logits.logsumexp(dim=2, keepdim=True)
            weights = ((logits - log_sum).exp() / (dim * temperature)).unsqueeze(2)
            by_mean.append(-(weights @ pull).squeeze(2))
            by_variance.append(0.5 * (weights @ pull.square_().sub_(precision)).squeeze(2))
            sums.append(log_sum)
        ctx.save_for_backward(torch.cat(by_mean), torch.cat(by_variance))
        return torch.cat(sums).squeeze(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_mean, by_variance = ctx.saved_tensors
        outer = gradients[0].unsqueeze(2)
        return outer * by_mean, outer * by_variance, None, None, None, None, None
