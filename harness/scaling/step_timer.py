"""Timer of a training step: computation, communication and input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.loader import BatchLoader

SENT = {
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


class Said(NamedTuple):
    """One collective of a step, or the wait for the last gradients."""

    kind: str
    """`message`, `gradients`, or `control`: what a gang asks its ranks between two reports."""
    begun: Any
    ended: Any
    sent: int
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


class StepWatch:
    """What one rank saw of its steps."""

    def __init__(self, device: torch.device, world_size: int) -> None:
        self._clock = Clock(device)
        self._world_size = world_size
        self._all_reduce: Callable[..., Any] = dist.all_reduce  # before `watching` puts another in its place
        self._marks: list[Any] = []
        self._steps: list[tuple[list[Said], float]] = []
        self._said: list[Said] = []
        self._input_s = 0.0
        self._pending: list[Any] = []

    @property
    def marks(self) -> int:
        """Steps that have ended."""
        return len(self._marks)

    def begin(self) -> None:
        """Drop what was said before the first step: weights are made equal on all ranks, say."""
        self._said, self._input_s = [], 0.0

    def end_step(self) -> None:
        """Note that a step has ended."""
        self._marks.append(self._clock.now())
        self._steps.append((self._said, self._input_s))
        self._said, self._input_s = [], 0.0

    def times(self, first: int) -> list[StepTimes]:
        """Return the steps from number `first` on, which must be at least 1: a step begins where another ended."""
        found = []
        for index in range(first, len(self._marks)):
            said, input_s = self._steps[index]
            found.append(
                StepTimes(
                    self._clock.seconds(self._marks[index - 1], self._marks[index]),
                    tuple(self._clock.seconds(one.begun, one.ended) for one in said),
                    input_s,
                    tuple(one.sent for one in said if one.kind == "gradients"),
                    tuple(one.sent for one in said if one.kind == "message"),
                )
            )
        return found

    @contextmanager
    def saying(self, kind: str, sent: int = 0) -> Iterator[None]:
        """Time what happens meanwhile as communication."""
        begun = self._clock.now()
        yield
        self._said.append(Said(kind, begun, self._clock.now(), sent))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See the collectives and the loader of this process meanwhile."""
        with ExitStack() as stack:
            for name, position in SENT.items():
                stack.enter_context(_replaced(dist, name, self._seen(getattr(dist, name), position)))
            stack.enter_context(_replaced(BatchLoader, "load", self._timed_load(BatchLoader.load)))
            yield

    def watch_gradients(self, model: nn.Module) -> None:
        """See the gradients of a model: each bucket's bytes, and the wait that no computation hides."""
        if isinstance(model, DistributedDataParallel):
            model.register_comm_hook(None, self._average)

    def _average(self, _, bucket):  # type: ignore[no-untyped-def]  # torch compares annotations, and these are strings
        """Average a bucket over the ranks, as DistributedDataParallel does without a hook.

        The last bucket is ready when the last gradient is; nothing is left to compute then, so waiting here instead of
        in DistributedDataParallel a moment later costs nothing, and is the part of the sum that the step waits for.
        """
        gradients = bucket.buffer().div_(self._world_size)
        begun = self._clock.now()
        work = self._all_reduce(gradients, async_op=True)
        future: torch.futures.Future[Tensor] = work.get_future().then(_first)
        self._pending.append(future)
        if bucket.is_last():
            for waiting in self._pending:
                waiting.wait()
            self._pending.clear()
        ended = self._clock.now() if bucket.is_last() else begun
        self._said.append(Said("gradients", begun, ended, gradients.numel() * gradients.element_size()))
        return future

    def _seen(self, collective: Callable[..., Any], position: int) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            sent: Tensor = args[position]
            with self.saying("message", sent.numel() * sent.element_size()):
                return collective(*args, **more)

        return call

    def _timed_load(self, load: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            begun = time.perf_counter()
            try:
                return load(*args)
            finally:
                self._input_s += time.perf_counter() - begun

        return call


def _first(done: torch.futures.Future[list[Tensor]]) -> Tensor:
    return done.value()[0]


@contextmanager
def _replaced(owner: Any, name: str, by: Callable[..., Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)
