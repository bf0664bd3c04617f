"""Ceilings of a device: the most operations and bytes a second, and the least time of a launch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_rows import NEEDS_CUDA, Row, Setting, missing
from measuring import device_clock

REPEATS = 5


class Ceilings(NamedTuple):
    """Measured, not those of a data sheet."""

    flops: Mapping[str, float]
    """Operations a second of a square matrix product, by precision as `compute.precision` names it."""
    bytes_per_s: float
    """Read and written, of a copy within the device."""
    launch_s: float
    """Of an operator that has nothing to do, one of many in a row."""
    from_host: float | None
    """Bytes a second from page-locked memory; none where the device is the host."""


@cache
def ceilings(setting: Setting) -> Ceilings:
    """Measure them, once a process."""
    device, size = setting.device, setting.of(2**20, 2**26, 2**30)
    kinds = ("bfloat16", "tf32", "float32") if setting.cuda else ("bfloat16", "float32")
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target, one = torch.empty_like(source), torch.zeros(1, device=device)
    from_host = None
    if setting.cuda:
        pinned = torch.zeros(size, dtype=torch.uint8).pin_memory()
        from_host = size / seconds(lambda: target.copy_(pinned, non_blocking=True), device)
    return Ceilings(
        {kind: _matrix_products(kind, setting) for kind in kinds},
        2 * size / seconds(lambda: target.copy_(source), device),
        seconds(lambda: one.add_(1), device, calls=200),
        from_host,
    )


def measure_ceilings(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the ceilings."""
    most = ceilings(setting)
    for kind in ("bfloat16", "tf32", "float32"):
        what = f"matrix product, {kind}"
        yield Row(what, most.flops[kind] / 1e12, "TFLOP/s") if kind in most.flops else missing(what, NEEDS_CUDA)
    yield Row("copy within the device, read and written", most.bytes_per_s / 1e9, "GB/s")
    yield Row("launch of an operator, many in a row", 1e6 * most.launch_s, "us")
    what = "copy from page-locked memory"
    yield missing(what, NEEDS_CUDA) if most.from_host is None else Row(what, most.from_host / 1e9, "GB/s")


def seconds(work: Callable[[], object], device: torch.device, calls: int = 5) -> float:
    """Return the median over repeats of a call's time among `calls` in a row, for which the host waits at the end."""
    now, times = device_clock(device), []
    for _ in range(REPEATS + 1):
        started = now()
        for _ in range(calls):
            work()
        times.append((now() - started) / calls)
    return statistics.median(times[1:])


def _matrix_products(kind: str, setting: Setting) -> float:
    size = setting.of(64, 1024, 8192)
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    one, other = (torch.randn(size, size, device=setting.device).to(dtype) for _ in range(2))
    with _tf32(kind == "tf32"):
        return 2 * size**3 / seconds(lambda: one @ other, setting.device)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
