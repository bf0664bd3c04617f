"""Arithmetic as configured in `compute`: precision of the networks, and torch.compile.

Compiled are the networks of a step and the pure functions of tensors around them. What draws random numbers, talks to
other ranks or depends on the number of the step stays outside, and floats go in as tensors, so that nothing is compiled
twice: not as training goes on, and not for another trial in the same process that differs in floats alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from trainers.config import TrainConfig
from trainers.models.heads import Dense
from trainers.transfer import send

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

GRAPHS = 1024
"""Graphs a function, of the shapes and settings that trials have; beyond it torch runs the function without one."""


def forward(model: nn.Module, images: Tensor, config: TrainConfig) -> Dense:
    """Return a network's output for images [N, 3, H, W] in [0, 1]: float32, whatever precision it computes in."""
    reduced = config.compute.precision == "bfloat16"
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=reduced):
        dense: Dense = model(images)
    return dense


def in_steps(network: nn.Module, config: TrainConfig) -> nn.Module:
    """Return the network as steps call it: compiled if `compute.compile` is set, else itself.

    The network itself stays as it is: images of an evaluation have other sizes, which no graph of a step should fit.
    """
    return _compile(network) if config.compute.compile else network


def as_configured(function: Callable[Arguments, Result], config: TrainConfig) -> Callable[Arguments, Result]:
    """Return the function, compiled if `compute.compile` is set; once a process."""
    if not config.compute.compile:
        return function
    compiled: Callable[Arguments, Result] = _compiled(function)
    return compiled


@cache
def _compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    graph = _compile(function)

    @wraps(function)
    def call(*arguments: Any) -> Result:
        device = next(leaf.device for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))
        return graph(*(_as_input(argument, device) for argument in arguments))

    return call


def _as_input(argument: Any, device: torch.device) -> Any:
    """Return a float as a tensor, which is an input of a graph; any other number is built into it."""
    return send(torch.tensor(argument), device) if isinstance(argument, float) else argument


def _compile(what: Any) -> Any:
    # From the limit on torch runs new shapes without a graph, and says so in one line of a log: the numbers of a trial
    # would depend on the trials before it.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = GRAPHS
    return torch.compile(what, dynamic=False)
