"""Pixels by the teacher's entropy: which enter L_u, and which are negatives of which class (U2PL, CVPR 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainers.config import IGNORE, UnreliableConfig
from trainers.css.prototypes import one_hot
from trainers.distributed import sum_over_ranks

_OCTAVES, _FRACTION_BITS = 30, 9
BINS = (_OCTAVES << _FRACTION_BITS) + 1
"""Of the histogram of entropies as shares of log K: 512 to each of the octaves from 2^-30 to 1, with all below in the
first. Entropies of one bin differ by less than 1/512 of themselves."""


def pixel_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each pixel's softmax, [N, H, W], as a share of log K, of logits [N, K, H, W]."""
    entropy = torch.special.entr(logits.softmax(dim=1)).sum(dim=1) / math.log(logits.shape[1])
    shares: Tensor = entropy.abs().clamp(max=1).nan_to_num(1.0)  # bins are its bits: no -0, and no NaN of divergence
    return shares


def as_unsure(entropy: Tensor, counted: Tensor, world_size: int = 1) -> Tensor:
    """Return of each counted pixel the share of them, over all ranks, whose entropy is at least as high; 0 elsewhere.

    A pixel is among the share p of the lowest entropies where this is at least 1 - p, and among the share p of the
    highest where it is at most p. Entropies in one bin are taken for equal. Ranks make one collective of `BINS` counts.

    Args:
        entropy: [N, H, W] in [0, 1].
        counted: [N, H, W] bool.
        world_size: ranks that share the batch.

    Returns:
        [N, H, W] in [0, 1].
    """
    bits = entropy.contiguous().view(torch.int32) >> (23 - _FRACTION_BITS)  # of float32: exponent + 127, fraction
    at = (bits - ((127 - _OCTAVES) << _FRACTION_BITS)).clamp(min=0).long()
    tally = torch.zeros(BINS, dtype=torch.int64, device=at.device)
    (tally,) = sum_over_ranks([tally.scatter_add_(0, at.flatten(), counted.flatten().long())], world_size)
    from_here = tally.long().flip(0).cumsum(0).flip(0)
    shares: Tensor = (from_here / from_here[0].clamp(min=1))[at] * counted
    return shares


def negatives(probs: Tensor, labels: Tensor, unreliable: Tensor, config: UnreliableConfig) -> Tensor:
    """Return of which classes each pixel is a negative, [N + U, K, h, w] bool.

    Args:
        probs: [N + U, K, h, w] of the teacher.
        labels: [N, h, w] of the labelled images, 255 ignored.
        unreliable: [U, h, w] bool, of the unlabelled images.
        config: the ranks.
    """
    order = probs.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    on_labelled, on_unlabelled = torch.split(rank, [len(labels), len(unreliable)])
    of_others = (labels != IGNORE).unsqueeze(1) & (one_hot(labels, probs.shape[1]) == 0)
    between = (on_unlabelled >= config.low_rank) & (on_unlabelled < config.high_rank)
    return torch.cat([of_others & (on_labelled < config.low_rank), unreliable.unsqueeze(1) & between])


def scattered(pixels: Tensor, seed: int | Tensor) -> Tensor:
    """Return whole numbers in [0, 2^32) as different as the pixel numbers: an order of them as good as drawn.

    The last steps of MurmurHash3: every rank computes the same, and nothing is sent to the device.
    """
    low = 0xFFFFFFFF
    mixed = (pixels * 0x9E3779B1 + seed) & low
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & low
    return mixed ^ (mixed >> 16)
