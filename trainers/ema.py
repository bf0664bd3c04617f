"""The teacher: a moving average of the student."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def make_teacher(student: nn.Module) -> nn.Module:
    """Return a copy of the student in evaluation mode, without gradients."""
    return copy.deepcopy(student).eval().requires_grad_(False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher: teacher <- momentum * teacher + (1 - momentum) * student.

    The rule for buffers: floating ones (BatchNorm's running statistics) are averaged like parameters, for they belong
    to the averaged weights; counters are copied. The published code leaves buffers as they were at the start.
    """
    averaged: list[Tensor] = []
    latest: list[Tensor] = []
    for parameter, newer in zip(teacher.parameters(), student.parameters(), strict=True):
        averaged.append(parameter)
        latest.append(newer)
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        if mine.is_floating_point():
            averaged.append(mine)
            latest.append(theirs)
        else:
            mine.copy_(theirs)
    torch._foreach_lerp_(averaged, latest, 1.0 - momentum)
