"""Timing of a few real steps of a configuration on this machine, in one process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.formats import counted
from harness.planning.arithmetic import Pace
from trainers.checkpoint import save_checkpoint
from trainers.config import TrainConfig
from trainers.data.splits import open_splits
from trainers.errors import ConfigError, DivergedError, UsageError
from trainers.evaluate import evaluate_state
from trainers.local_run import LocalRun
from trainers.loop import train, warm_up
from trainers.overrides import apply_overrides
from trainers.run import Decision
from trainers.state import TrainState

STEPS = 20


@dataclass(frozen=True)
class Timing(Pace):
    """Measured times of one process; a step's is a mean."""

    steps: int
    """Steps that were timed, after one that was not."""
    device: str
    """What the steps ran on: the name of a GPU, or as `1 CPU thread`."""
    unit: str
    """`CPU` or `GPU`."""


def time_config(config: TrainConfig, workers: int, storage: Path, cpus: int = 1) -> Timing:
    """Train the first steps of a configuration, evaluate and save once.

    The process does one worker's share of the batch, on `cpus` threads where it has no GPU, as a gang's worker
    does. What workers wait for each other is not measured, nor that several gangs share a machine's memory.

    Raises:
        UsageError: the configuration cannot be trained here, or the storage cannot be written.
    """
    schedule = config.schedule
    steps = min(STEPS, schedule.steps)
    overrides = {
        "schedule.labelled_batch": schedule.labelled_batch // workers,
        "schedule.unlabelled_batch": schedule.unlabelled_batch // workers,
        "schedule.evaluate_every": steps,
    }
    share = apply_overrides(config, overrides)
    report: dict[str, float] = {}

    def listen(metrics: Mapping[str, float]) -> Decision:
        report.update(metrics)
        return Decision.STOP

    run, threads = LocalRun(listener=listen), torch.get_num_threads()
    cuda = run.device.type == "cuda"
    try:
        if not cuda:
            torch.set_num_threads(cpus)
        warm_up(share, run)
        state = train(share, run)
        evaluate_s = _timed(run, lambda: evaluate_state(state, open_splits(share.data), share, run))
        start_s = _timed(run, lambda: TrainState(share, run))
        save_s, size = _save(state, run, storage)
    except DivergedError as error:
        raise ConfigError(f"the base configuration must train for {steps} steps, but {error}: change it") from None
    finally:
        torch.set_num_threads(threads)
    device, unit = (torch.cuda.get_device_name(run.device), "GPU") if cuda else (counted(cpus, "CPU thread"), "CPU")
    return Timing(report["time/step_s"], evaluate_s, save_s, start_s, size, steps, device, unit)


def _save(state: TrainState, run: LocalRun, storage: Path) -> tuple[float, int]:
    try:
        with tempfile.TemporaryDirectory(prefix=".s4-plan-", dir=existing(storage)) as folder:
            path = Path(folder) / "latest.pt"
            seconds = _timed(run, lambda: save_checkpoint(path, state.state_dict()))
            return seconds, path.stat().st_size
    except OSError as error:
        raise UsageError(
            f"--storage must be a folder that can be written, got {storage} ({error.strerror}): take another"
        ) from None


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _timed(run: LocalRun, work: Callable[[], object]) -> float:
    def now() -> float:
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        return time.perf_counter()

    begun = now()
    work()
    return now() - begun
