"""A process that trains one trial after another: its memory, and what it is worth after a fault."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from gpu_processes import together
from gpu_rows import NEEDS_CUDA, Row, Setting, live_bytes, missing
from gpu_works import small

from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.run import Decision

MIB = 2**20
LOSS = "train/loss/total"
MEMORY, ASSERT = "out of memory", "assert on the device"
NEXT = "difference of the next trial's loss"


def measure_memory(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield by how much the tensors alive grow from the second trial to the last, and whether A, B, A gives A twice."""
    alive, losses = list[int](), list[float]()
    trials = [{}, {"loss.lambda_u": 0.5}] * setting.of(2, 5, 10)
    for settings in trials:
        losses.append(_last_loss(setting, settings))
        alive.append(live_bytes(setting.device))
    note = f"over {len(trials)} trials; {alive[1] / MIB:.4g} MiB after the second"
    yield Row("growth of the tensors that stay alive", (alive[-1] - alive[1]) / MIB, "MiB", note=note)
    yield Row("A, B, A: difference of A's last losses", abs(losses[2] - losses[0]), note=f"a loss of {losses[0]:.4g}")


def measure_faults(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield what stays after a trial runs out of memory, and what a process is worth after an assert on the device."""
    before = _last_loss(setting, {})
    alive = live_bytes(setting.device)
    yield Row("trials that failed for it, of 1", _runs_out_of_memory(setting), of=MEMORY)
    yield Row("tensors that stay alive", (live_bytes(setting.device) - alive) / MIB, "MiB", of=MEMORY)
    after = _last_loss(setting, {})
    yield Row(NEXT, abs(after - before), note="in the same process", of=MEMORY)
    if not setting.cuda:
        yield missing("all", NEEDS_CUDA, ASSERT)
        return
    (found,) = together(_after_an_assert, [(setting,)])
    yield Row("processes that compute after it, of 1", int(found["computes"]), note=found["error"], of=ASSERT)
    (loss,) = together(_in_a_new_process, [(setting,)])
    yield Row(NEXT, abs(loss - before), note="in a process that replaces it", of=ASSERT)


def _last_loss(setting: Setting, settings: Mapping[str, Any]) -> float:
    reports: list[Mapping[str, float]] = []

    def listen(metrics: Mapping[str, float]) -> Decision:
        reports.append(metrics)
        return Decision.CONTINUE

    config = small(setting, {"compute.deterministic": True, **settings})  # else equal trials may differ on a card
    train(config, LocalRun(device=setting.device, listener=listen))
    return reports[-1][LOSS]


def _runs_out_of_memory(setting: Setting) -> int:
    """Return 1 if a trial that allocates until nothing is left failed for that reason."""
    block = 2**30 if setting.cuda else 2**50

    def hoard(metrics: Mapping[str, float]) -> Decision:
        blocks = []
        while True:
            blocks.append(torch.empty(block, dtype=torch.uint8, device=setting.device))

    try:
        train(small(setting), LocalRun(device=setting.device, listener=hoard))
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises a plain one
        traceback.clear_frames(error.__traceback__)
        return int(isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error))
    return 0


def _after_an_assert(barrier: Any, setting: Setting) -> dict[str, Any]:
    """Trip an assert on the device; return what it raised, and whether the device computes after it."""
    said = ""
    try:
        torch.zeros(3, device=setting.device)[torch.tensor([7], device=setting.device)].sum().item()
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    try:
        computes = bool((torch.ones(2, device=setting.device).sum() == 2).item())
    except RuntimeError:
        computes = False
    return {"error": said, "computes": computes}


def _in_a_new_process(barrier: Any, setting: Setting) -> float:
    return _last_loss(setting, {})
