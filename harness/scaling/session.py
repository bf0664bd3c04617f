"""The session of a scaling measurement: a gang for each point, and its record in MLflow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
import yaml

from harness.cluster import interruptible
from harness.gangs.client import call_with_retry, start_dispatcher
from harness.gangs.messages import Job
from harness.gangs.pool import GangPool
from harness.scaling.measure import ScaleExperiment
from harness.scaling.model import Sample
from harness.scaling.report import CURVE, FILES, Scaling
from harness.scaling.request import ScaleRequest
from harness.tracking.recorder import Delivery, MlflowRecorder
from harness.tracking.stores import OUTBOX
from harness.trials import Trial, TrialState

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
            call_with_retry(dispatcher.abort, pool.broken)
    raise KeyboardInterrupt


METRIC = "images_per_s"
SHOWN = (
    METRIC, "step_s", "communication_s", "transfer_s", "input_s", "bytes_per_step", "peak_memory_bytes",
    "others_cores",
)  # fmt: skip


class ScaleRecord:
    """The records of one measurement, as a context manager; what is open when an error leaves it ends as it should."""

    def __init__(self, tracking_uri: str, experiment: str, folder: Path, request: ScaleRequest) -> None:
        self._request = request
        tags = {"s4.preset": request.preset, "s4.mode": request.mode.value, "s4.folder": str(folder)}
        self._recorder = MlflowRecorder(
            tracking_uri,
            experiment,
            "scale",
            folder.name,
            tags,
            folder / OUTBOX,
            metric=METRIC,
            trial_tags=lambda trial: {"s4.kind": "point", "s4.workers": str(trial.overrides["workers"])},
        )
        self._points: dict[int, Trial] = {}

    def __enter__(self) -> Self:
        self._recorder.__enter__()
        asked = yaml.safe_dump(dict(self._request.as_plain()), sort_keys=False)
        self._recorder.artifact("request.yaml", asked)
        config = self._request.config.model_dump(mode="json")
        self._recorder.artifact("config.yaml", yaml.safe_dump(config, sort_keys=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.__exit__(kind, error, trace)

    def close(self) -> Delivery:
        """Return what became of the records."""
        return self._recorder.close()

    def measured(self, workers: int, repeat: int, sample: Sample) -> None:
        """Take in one repeat of a point, at step `repeat` + 1."""
        trial = self._points.get(workers) or self._start(workers)
        trial.metrics = {"step": float(repeat + 1), **{f"repeat/{name}": sample[name] for name in SHOWN}}
        self._recorder.on_report(trial)

    def finish(self, found: Scaling, folder: Path) -> None:
        """Take in the points, which are medians over their repeats, and the files."""
        for point in found.points:
            trial, values = self._points[point.workers], asdict(point)
            metrics = {name: float(values[name]) for name in (*SHOWN, "efficiency", "compute_s")}
            trial.take_in({"step": float(point.repeats), **metrics}, point.images_per_s)
            self._recorder.on_report(trial)
            trial.state = TrialState.COMPLETE
            self._recorder.on_end(trial)
        for name in (*FILES, CURVE):
            self._recorder.file(folder / name)

    def _start(self, workers: int) -> Trial:
        config = self._request.config_of(workers)
        asked: Mapping[str, object] = {**self._request.as_plain(), "workers": workers}
        trial = self._points[workers] = Trial(
            number=self._request.counts.index(workers),
            params={},
            overrides={"workers": workers},
            config_hash=config.hash,
            config={**config.model_dump(mode="json"), "scale": asked},
        )
        self._recorder.on_start(trial)
        return trial
