"""Arithmetic as configured in `compute`: precision of the networks, and torch.compile.

Compiled are the networks and the pure functions of tensors around them. What draws random numbers, talks to other ranks
or depends on the number of the step stays outside, so that nothing is compiled twice as training goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from trainers.config import TrainConfig
from trainers.models.heads import Dense

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def forward(model: nn.Module, images: Tensor, config: TrainConfig) -> Dense:
    """Return a network's output for images [N, 3, H, W] in [0, 1]: float32, whatever precision it computes in."""
    reduced = config.compute.precision == "bfloat16"
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=reduced):
        dense: Dense = model(images)
    return dense


def as_configured(function: Callable[Arguments, Result], config: TrainConfig) -> Callable[Arguments, Result]:
    """Return the function, compiled if `compute.compile` is set; once a process."""
    if not config.compute.compile:
        return function
    compiled: Callable[Arguments, Result] = _compiled(function)
    return compiled


@cache
def _compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    return torch.compile(function, dynamic=False)
