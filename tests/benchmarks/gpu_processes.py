"""Several processes on one card, with and without MPS, the server that lets them share it at the same moment."""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_rows import NEEDS_CUDA, NOT_QUICK, Row, Setting, missing
from gpu_works import digits, get_ready, in_steps

from harness.formats import counted
from trainers.local_run import LocalRun
from trainers.loop import train

TIMEOUT_S = 300.0
"""How long a process may take, its start included."""
CONTROL = "nvidia-cuda-mps-control"
FORKS = multiprocessing.get_context("forkserver")
"""Children of a server that has imported torch and the trainer, and never touches the card."""
FORKS.set_forkserver_preload(["trainers.loop"])


def measure_processes(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the steps a second of all processes together, each training digits, for more and more processes."""
    numbers = (2,) if setting.quick else (1, 2, 4, 8) if setting.cuda else (1, 2)
    steps = setting.of(5, 50, 1000)
    yield from _rates("eager", numbers, steps, setting, {})
    if setting.quick:
        yield missing("all", NOT_QUICK, "compute.graph")
    else:
        yield from _rates("compute.graph", numbers, steps, setting, {"compute.graph": True})
    if not setting.cuda:
        yield missing("all", NEEDS_CUDA, "with MPS")
    elif shutil.which(CONTROL) is None:
        yield missing("all", f"{CONTROL} is not installed", "with MPS")
    else:
        with _mps() as environment:
            yield from _rates("with MPS", numbers[1:], steps, setting, {}, environment)


def _rates(
    name: str,
    numbers: tuple[int, ...],
    steps: int,
    setting: Setting,
    settings: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    alone = None
    for number in numbers:
        spans = together(train_digits, [(steps, setting.device, settings, environment or {})] * number)
        rate = number * steps / (max(end for _, end in spans) - min(begun for begun, _ in spans))
        alone = alone or rate / number
        note = f"{rate / alone:.2f} times one process" if number > 1 and numbers[0] == 1 else ""
        yield Row(counted(number, "process", "processes"), rate, "steps/s", note=note, of=name)


def train_digits(
    barrier: Any, steps: int, device: torch.device, settings: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[float, float]:
    """Train in this process once all others are ready; return when it began and ended, evaluation included."""
    os.environ.update(environment)  # before the card is first used
    if device.type != "cuda":
        torch.set_num_threads(1)
    config = in_steps(digits(settings), steps)
    get_ready(config, device)
    barrier.wait(TIMEOUT_S)
    begun = time.monotonic()
    train(config, LocalRun(device=device))
    return begun, time.monotonic()


def together(work: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Run work in a process for each tuple of arguments, which follow a barrier of all; return the results.

    Raises:
        RuntimeError: a process failed, or took longer than `TIMEOUT_S`.
    """
    barrier, results = FORKS.Barrier(len(arguments)), FORKS.Queue()
    children = [FORKS.Process(target=_put, args=(results, work, barrier, *given), daemon=True) for given in arguments]
    for child in children:
        child.start()
    found = list[Any]()
    try:
        while len(found) < len(children):
            result, failure = results.get(timeout=TIMEOUT_S)
            if failure:  # the others may wait for it
                raise RuntimeError(failure)
            found.append(result)
    except queue.Empty:
        raise RuntimeError(f"a process took longer than {TIMEOUT_S:g} s") from None
    finally:
        for child in children:
            child.join(1)
            child.kill()
    return found


def _put(results: Any, work: Callable[..., Any], *arguments: Any) -> None:
    try:
        results.put((work(*arguments), ""))
    except BaseException as error:
        results.put((None, f"{type(error).__name__}: {error}"))


@contextmanager
def _mps() -> Iterator[dict[str, str]]:
    """Run a server of MPS of our own; yield the environment of its clients."""
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        ours = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        everything = {**os.environ, **ours}
        subprocess.run([CONTROL, "-d"], env=everything, check=True, timeout=30)
        try:
            yield ours
        finally:
            subprocess.run([CONTROL], input="quit\n", text=True, env=everything, check=False, timeout=30)
