"""Time and memory, measured in ways that other work on the machine disturbs little."""

from __future__ import annotations

import resource
import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

Clock = Callable[[], float]


class Seconds(NamedTuple):
    """Medians over the repeats."""

    total: float
    """By the benchmark's clock."""
    user: float
    """User time of the process alone: without the kernel's time, most of which goes to handing out fresh memory."""


def clock(threads: int) -> Clock:
    """CPU time of the process with one thread, which other processes do not lengthen; else the clock on the wall."""
    return time.process_time if threads == 1 else time.perf_counter


def device_clock(device: torch.device) -> Clock:
    """Return the clock on the wall, which waits for what the device has been given before."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def interleaved(functions: Mapping[str, Callable[[], object]], repeats: int, now: Clock) -> dict[str, Seconds]:
    """Call all functions in turn, `repeats` times after a warm-up, so that what drifts drifts for all alike."""
    samples: dict[str, list[Seconds]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            started, user = now(), _user_time()
            function()
            if repeat:
                samples[name].append(Seconds(now() - started, _user_time() - user))
    return {name: Seconds(*map(statistics.median, zip(*taken, strict=True))) for name, taken in samples.items()}


def _user_time() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


class PeakMemory(TorchDispatchMode):
    """The most bytes that storages made within this context held at a time; inputs do not count.

    A storage counts from the operation that returned it until it is freed, wherever it is kept. What a kernel needs for
    itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_iter((args, kwargs or {})):
            self._note(value, made_here=False)
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            self._note(value, made_here=True)
        return result

    def _note(self, value: object, made_here: bool) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if storage._cdata in self._known:
            return
        size = storage.nbytes() if made_here else 0
        self._known[storage._cdata] = weakref.finalize(storage, self._freed, storage._cdata, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _freed(self, key: int, size: int) -> None:
        del self._known[key]
        self.live -= size


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes, see `PeakMemory`."""
    with PeakMemory() as counted:
        function()
    return counted.peak


def resident_growth(function: Callable[[], object]) -> int | None:
    """Bytes by which the process's resident memory grew at most during a call; none where the system does not say.

    Call it in a fresh process: memory that was freed but not given back hides what is used again.
    """
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return None
    reset.write_text("5", encoding="ascii")
    before = _status(status, "VmRSS")
    function()
    return _status(status, "VmHWM") - before


def _status(path: Path, field: str) -> int:
    line = next(line for line in path.read_text(encoding="ascii").splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024
