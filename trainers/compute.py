"""Arithmetic as configured in `compute`: precision of the networks, algorithms of CUDA, and torch.compile.

Compiled are the networks of a step and the pure functions of tensors around them. What draws random numbers, talks to
other ranks or depends on the number of the step stays outside, and floats go in as tensors, so that nothing is compiled
twice: not as training goes on, and not for another trial in the same process that differs in floats alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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

CUDNN: Any = torch.backends.cudnn

GRAPHS = 1024
"""Graphs a function, of the shapes and settings that trials have; beyond it torch runs the function without one."""


def forward(model: nn.Module, images: Tensor, config: TrainConfig, keep: tuple[Tensor, ...] | None = None) -> Dense:
    """Return a network's output for images [N, 3, H, W] in [0, 1]: float32, whatever precision it computes in.

    `keep` is what the channels between encoder and decoder are multiplied by (`Network.forward`).
    """
    with as_network(config, images.device):
        dense: Dense = model(images) if keep is None else model(images, keep)
    return dense


@contextmanager
def as_network(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Compute within as networks do in their forward: in `compute.precision`."""
    reduced = config.compute.precision == "bfloat16"
    with in_precision(config, device), torch.autocast(device.type, torch.bfloat16, enabled=reduced):
        yield


@contextmanager
def in_precision(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Multiply float32 numbers within as `compute.precision` says: for forwards and backwards of networks.

    By itself torch takes TF32 in convolutions of CUDA and not in matrix products.
    """
    tf32 = config.compute.precision == "tf32"
    with _set_on_cuda(device, (CUDNN, "allow_tf32", tf32), (torch.backends.cuda.matmul, "allow_tf32", tf32)):
        yield


@contextmanager
def step_algorithms(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Choose CUDA's algorithms for the steps of a training.

    The quickest ones for their shapes, which never change, by trial; or those that repeat bit by bit.
    """
    repeatable = config.compute.deterministic and device.type == "cuda"
    settings = (CUDNN, "benchmark", not repeatable), (CUDNN, "deterministic", repeatable)
    with _set_on_cuda(device, *settings), _deterministic() if repeatable else nullcontext():
        yield


@contextmanager
def any_shapes() -> Iterator[None]:
    """Try out no algorithms within: images of an evaluation may all differ in size."""
    with _set_on_cuda(torch.device("cuda"), (CUDNN, "benchmark", False)):
        yield


def in_steps(network: nn.Module, config: TrainConfig) -> nn.Module:
    """Return the network as steps call it: compiled if `compute.compile` is set, else itself.

    The network itself stays as it is: images of an evaluation have other sizes, which no graph of a step should fit.
    """
    return compiled(network) if config.compute.compile else network


def as_configured(function: Callable[Arguments, Result], config: TrainConfig) -> Callable[Arguments, Result]:
    """Return the function, compiled if `compute.compile` is set; once a process."""
    if not config.compute.compile:
        return function
    graph: Callable[Arguments, Result] = _compiled(function)
    return graph


@cache
def _compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    graph = compiled(function)

    @wraps(function)
    def call(*arguments: Any) -> Result:
        device = next(leaf.device for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))
        result: Result = graph(*(_as_input(argument, device) for argument in arguments))
        return result

    return call


def _as_input(argument: Any, device: torch.device) -> Any:
    """Return a float as a tensor, which is an input of a graph; any other number is built into it."""
    return send(torch.tensor(argument), device) if isinstance(argument, float) else argument


@contextmanager
def _deterministic() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def _set_on_cuda(device: torch.device, *settings: tuple[Any, str, bool]) -> Iterator[None]:
    """Set attributes of modules within, if the device is one of CUDA: (module, name, value)."""
    settings = settings if device.type == "cuda" else ()
    before = [getattr(module, name) for module, name, _ in settings]
    for module, name, value in settings:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(settings, before, strict=True):
            setattr(module, name, value)


def compiled(what: Any, whole: bool = False) -> Any:
    """Return a function or network compiled; if `whole`, as one graph, which CUDA captures and replays."""
    # From its limits on torch runs new shapes without a graph, and says so in one line of a log: the numbers of a trial
    # would depend on the trials before it. Later versions have other names for them, and still understand these.
    torch._dynamo.config.cache_size_limit = torch._dynamo.config.accumulated_cache_size_limit = GRAPHS
    return torch.compile(what, dynamic=False, fullgraph=whole, mode="reduce-overhead" if whole else None)
