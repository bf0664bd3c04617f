"""torch.compile, where the config asks for it.

Compiled are the networks and the pure functions of tensors around them. What draws random numbers, talks to other ranks
or depends on the number of the step stays outside, so that nothing is compiled twice as training goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch

from trainers.config import TrainConfig

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def as_configured(function: Callable[Arguments, Result], config: TrainConfig) -> Callable[Arguments, Result]:
    """Return the function, compiled where `compute.compile` says so; once a process."""
    if not config.compute.compile:
        return function
    compiled: Callable[Arguments, Result] = _compiled(function)
    return compiled


@cache
def _compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    return torch.compile(function, dynamic=False)
