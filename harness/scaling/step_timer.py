"""Timer of a training step: computation, communication and input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.loader import BatchLoader

CONTRIBUTED = {
    "all_reduce": 0,
    "broadcast": 0,
    "reduce": 0,
    "all_gather": 1,
    "all_gather_into_tensor": 1,
    "reduce_scatter_tensor": 1,
    "all_to_all_single": 1,
}
"""Collectives of `torch.distributed`, and which argument is the tensor that this rank contributes."""


class Clock:
    """Time where the work is done: the host's for a CPU, the stream's for a GPU, which runs behind the host."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def now(self) -> Any:
        """Return a stamp."""
        if not self._cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, begun: Any, ended: Any) -> float:
        """Return the time between two stamps; a GPU is waited for."""
        if not self._cuda:
            return float(ended - begun)
        ended.synchronize()
        return float(begun.elapsed_time(ended)) / 1000


class Collective(NamedTuple):
    """One collective of a step, or the wait for the last gradients."""

    kind: str
    """`message`, `gradients`, or `control`: what a gang asks its ranks between two reports."""
    begun: Any
    ended: Any
    num_bytes: int
    """Bytes that this rank contributed."""


class StepTimes(NamedTuple):
    """One step of one rank."""

    step_s: float
    """From the end of the step before to the end of this one."""
    waits: tuple[float, ...]
    """Seconds inside of each collective, in order; for gradients from the last one to the end of their sum, so what is
    not hidden by the backward."""
    input_s: float
    """Inside of the loader: waiting for images, bringing them to the device, weak augmentation."""
    gradients: tuple[int, ...]
    """Bytes of each bucket of gradients."""
    messages: tuple[int, ...]
    """Bytes of each other collective, in order."""

    @property
    def communication_s(self) -> float:
        """All waits."""
        return sum(self.waits)


class StepTimer:
    """Timer of the steps of one rank."""

    def __init__(self, device: torch.device, world_size: int) -> None:
        self._clock = Clock(device)
        self._world_size = world_size
        self._all_reduce: Callable[..., Any] = dist.all_reduce  # before `installed` puts another in its place
        self._steps: list[tuple[Any, list[Collective], float]] = []
        """Of each: the stamp of its end, its collectives, and seconds inside of the loader."""
        self._collectives: list[Collective] = []
        self._input_s = 0.0
        self._pending: list[Any] = []

    @property
    def steps(self) -> int:
        """Steps that have ended."""
        return len(self._steps)

    def start(self) -> None:
        """Drop what was sent before the first step: weights are made equal on all ranks, say."""
        self._collectives, self._input_s = [], 0.0

    def end_step(self) -> None:
        """Note that a step has ended."""
        self._steps.append((self._clock.now(), self._collectives, self._input_s))
        self._collectives, self._input_s = [], 0.0

    def times(self, first: int) -> list[StepTimes]:
        """Return the steps from number `first` on, which must be at least 1: a step begins where another ended."""
        return [
            StepTimes(
                self._clock.seconds(begun, ended),
                tuple(self._clock.seconds(collective.begun, collective.ended) for collective in collectives),
                input_s,
                tuple(collective.num_bytes for collective in collectives if collective.kind == "gradients"),
                tuple(collective.num_bytes for collective in collectives if collective.kind == "message"),
            )
            for (begun, _, _), (ended, collectives, input_s) in pairwise(self._steps[first - 1 :])
        ]

    @contextmanager
    def communication(self, kind: str, num_bytes: int = 0) -> Iterator[None]:
        """Time the block as communication."""
        begun = self._clock.now()
        yield
        self._collectives.append(Collective(kind, begun, self._clock.now(), num_bytes))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Time the collectives and the loader of this process within the block."""
        with ExitStack() as stack:

            def replace(owner: Any, name: str, by: Callable[..., Any]) -> None:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, by)

            for name, position in CONTRIBUTED.items():
                replace(dist, name, self._timed_collective(getattr(dist, name), position))
            replace(BatchLoader, "load", self._timed_load(BatchLoader.load))
            yield

    def add_gradient_hook(self, model: nn.Module) -> None:
        """Time the gradients of a model: each bucket's bytes, and the wait that no computation hides."""
        if isinstance(model, DistributedDataParallel):
            model.register_comm_hook(None, self._average_bucket)

    def _average_bucket(self, _, bucket):  # type: ignore[no-untyped-def]  # torch compares annotations, and these are strings
        """Average a bucket over the ranks, as DistributedDataParallel does without a hook.

        The last bucket is ready when the last gradient is; nothing is left to compute then, so waiting here instead of
        in DistributedDataParallel a moment later costs nothing, and is the part of the sum that the step waits for.
        """
        gradients = bucket.buffer().div_(self._world_size)
        begun = self._clock.now()
        work = self._all_reduce(gradients, async_op=True)
        future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
        self._pending.append(future)
        if bucket.is_last():
            for pending in self._pending:
                pending.wait()
            self._pending.clear()
        ended = self._clock.now() if bucket.is_last() else begun
        self._collectives.append(Collective("gradients", begun, ended, gradients.nbytes))
        return future

    def _timed_collective(self, collective: Callable[..., Any], position: int) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            with self.communication("message", args[position].nbytes):
                return collective(*args, **more)

        return call

    def _timed_load(self, load: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            begun = time.perf_counter()
            batch = load(*args)
            self._input_s += time.perf_counter() - begun
            return batch

        return call
