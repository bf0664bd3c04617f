"""Sums over ranks, the only collective of this package besides the gradients' mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def sum_over_ranks(tensors: Sequence[Tensor], world_size: int) -> list[Tensor]:
    """Return each tensor summed over the ranks, in one message of float32.

    Unconditional and of fixed shape: every rank makes the same calls in the same order, with tensors of the same
    shapes. Counts stay exact up to 2^24.
    """
    if world_size == 1:
        return list(tensors)
    flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def sum_counts(counts: Tensor, world_size: int) -> Tensor:
    """Return integer counts summed over the ranks, exactly."""
    if world_size > 1:
        dist.all_reduce(counts)
    return counts


def moving_buffers(model: nn.Module) -> list[Tensor]:
    """Return floating buffers of all modules in training mode: frozen statistics stay as they are."""
    return [
        buffer
        for module in model.modules()
        if module.training
        for buffer in module.buffers(recurse=False)
        if buffer.is_floating_point()
    ]


@torch.no_grad()
def average_buffers(model: nn.Module, world_size: int) -> None:
    """Replace the floating buffers that a step moves by their mean over the ranks, in one message.

    So every rank's teacher stays the same. Running means become those that one process would have kept; running
    variances lack the spread between the ranks' means, as in any BatchNorm over a rank's share.
    """
    if world_size == 1:
        return
    buffers = moving_buffers(model)
    means = [total / world_size for total in sum_over_ranks(buffers, world_size)]
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean)
