"""Measures one point once: a gang that is started for it, given one job, and ended.

Points take turns, and each turn has new processes: what the machine does besides, and how a process happened to be laid
out in memory, spreads over all points alike.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray

from harness.gangs.messages import Job
from harness.gangs.pool import GangPool
from harness.gangs.reconnect import insist, start_dispatcher
from harness.interrupt import interruptible
from harness.scaling.measure import ScaleExperiment
from harness.scaling.points import Sample
from harness.scaling.request import ScaleRequest

POLL_S = 0.5
MAX_RETRIES = 1
THREADS = 1
"""Of each worker's arithmetic on a CPU."""

Tell = Callable[[int, int, Sample], None]
"""Told of workers, repeat and what was measured."""


class MeasurementError(RuntimeError):
    """A point could not be measured."""


def measure_all(request: ScaleRequest, folder: Path, use_gpu: bool, tell: Tell) -> Mapping[int, list[Sample]]:
    """Measure every point as often as asked; return the samples by workers. A Ray session must be active.

    Args:
        folder: absolute, seen by every node; Ray Train writes there.

    Raises:
        MeasurementError: the reason.
        KeyboardInterrupt: the measurement was interrupted.
    """
    samples: dict[int, list[Sample]] = {workers: [] for workers in request.counts}
    with interruptible() as interrupted:
        for repeat in range(request.repeats):
            # Back and forth, so that a slow drift of the machine falls on all points alike.
            for workers in request.counts if repeat % 2 == 0 else reversed(request.counts):
                sample = _measure(request, workers, folder / f"{repeat}-{workers}", use_gpu, interrupted)
                samples[workers].append(sample)
                tell(workers, repeat, sample)
    return samples


def _measure(request: ScaleRequest, workers: int, folder: Path, use_gpu: bool, interrupted: threading.Event) -> Sample:
    config = request.config_of(workers)
    experiment = ScaleExperiment(config, request.images_of(workers), request.steps, request.blocks, request.warmup)
    dispatcher = start_dispatcher(MAX_RETRIES)
    pool = GangPool(dispatcher, experiment, 1, (workers,), folder, use_gpu, THREADS, save_interval_s=float("inf"))
    try:
        with pool:
            ray.get(dispatcher.submit.remote(Job("0", {}, str(folder / "job"), config.hash)))
            return _wait(dispatcher, pool, interrupted)
    finally:
        ray.kill(dispatcher)


def _wait(dispatcher: Any, pool: GangPool, interrupted: threading.Event) -> Sample:
    """Return the report of the gang. An interruption waits for nothing: there is nothing to save."""
    pending = dispatcher.next_report.remote("0")
    while not interrupted.is_set():
        done, _ = ray.wait([pending], timeout=POLL_S)
        if done:
            report = ray.get(pending)
            if report.error is not None:
                raise MeasurementError(report.error)
            return dict(report.metrics)
        if pool.broken is not None:
            insist(dispatcher.abort, pool.broken)
    raise KeyboardInterrupt
