"""A measurement of scaling: its request, a gang for each point, and its record in MLflow."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import (
    Allocation,
    Slots,
    WorkerResources,
    check_nodes,
    cluster_nodes,
    cluster_slots,
    cores,
    local_slots,
)
from harness.connection import ray_session
from harness.console import Console
from harness.experiment import CssExperiment
from harness.formats import counted
from harness.gangs.jobs import Jobs, run_jobs
from harness.one_driver import new_run
from harness.run_folder import GANGS, RunInfo, write_run
from harness.scaling.measure import ScaleExperiment
from harness.scaling.model import PREDICTED, Fit, Mode, NotIdentifiedError, Sample, fit_all, gather_points
from harness.scaling.report import CURVE, FILES, Scaling, draw_curve, lines, to_json, to_table, write
from harness.tracking.recorder import MlflowRecorder, recording, tags_of
from harness.tracking.source import command_line
from harness.tracking.stores import EXPERIMENT, absolute_uri, check_store
from harness.trials import GangsBrokenError, Trial, TrialState
from trainers.config import TrainConfig
from trainers.data.batches import check_batches
from trainers.errors import ConfigError, UsageError
from trainers.overrides import apply_overrides

METRIC = "images_per_s"
SHOWN = (
    METRIC, "step_s", "communication_s", "transfer_s", "input_s", "bytes_per_step", "peak_memory_bytes",
    "others_cores",
)  # fmt: skip

OnSample = Callable[[int, int, Sample], None]
"""Takes workers, repeat and what was measured."""


class MeasurementError(RuntimeError):
    """A point could not be measured."""


@dataclass(frozen=True)
class ScaleRequest:
    """Which points are measured, and for how long."""

    preset: str
    config: TrainConfig
    """Its batch is that of a worker with weak scaling, and that of all workers together with strong scaling."""
    mode: Mode
    counts: tuple[int, ...]
    """Worker counts, ascending; none: 1, 2, 4, ... as far as they fit."""
    steps: int
    """Steps in a timed block."""
    blocks: int
    """Timed blocks of a repeat."""
    warmup: int
    """Steps before the first block, which are reported apart."""
    repeats: int
    """How often each point is measured, in processes of its own each time."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What of the config was set by hand, by dotted path."""
    cpus: int | None = None
    """CPUs of each worker; none: 1."""

    @property
    def total_steps(self) -> int:
        """Of a repeat."""
        return self.warmup + self.steps * self.blocks

    def config_of(self, workers: int) -> TrainConfig:
        """Return what this many workers train.

        Its horizon lies just behind the last step that is timed, and it is never evaluated.

        Raises:
            ConfigError: the workers cannot share the batch.
        """
        schedule, times = self.config.schedule, workers if self.mode == "weak" else 1
        overrides = {
            "schedule.labelled_batch": schedule.labelled_batch * times,
            "schedule.unlabelled_batch": schedule.unlabelled_batch * times,
            "schedule.steps": self.total_steps + 1,
            "schedule.evaluate_every": self.total_steps + 1,
        }
        config = apply_overrides(self.config, overrides)
        check_batches(config, workers)
        return config

    def fits(self, workers: int) -> bool:
        """Return whether this many workers can share the batch."""
        try:
            self.config_of(workers)
        except ConfigError:
            return False
        return True

    def images_of(self, workers: int) -> int:
        """Return the images of a step, labelled and unlabelled, over all workers."""
        return (self.config.schedule.labelled_batch + self._unlabelled) * (workers if self.mode == "weak" else 1)

    def as_plain(self) -> Mapping[str, Any]:
        """Return it as JSON-able values, the config as its batches."""
        return {
            "preset": self.preset,
            "mode": self.mode,
            "workers": list(self.counts),
            "labelled_batch": self.config.schedule.labelled_batch,
            "unlabelled_batch": self._unlabelled,
            "batch_of": "a worker" if self.mode == "weak" else "all workers",
            "steps": self.steps,
            "blocks": self.blocks,
            "warmup": self.warmup,
            "repeats": self.repeats,
            **({} if self.cpus is None else {"cpus_per_worker": self.cpus}),
        }

    @property
    def _unlabelled(self) -> int:
        return self.config.schedule.unlabelled_batch if self.config.uses_unlabelled else 0


def make_request(
    experiment: CssExperiment, mode: Mode, counts: tuple[int, ...], *lengths: int, cpus: int | None = None
) -> ScaleRequest:
    """Return a request whose batches and data are checked; `lengths`: steps, blocks, warmup, repeats.

    Raises:
        ConfigError, DataError: the batch or the data is refused.
    """
    steps, blocks, warmup, repeats = lengths
    request = ScaleRequest(
        experiment.name, experiment.base, mode, counts, steps, blocks, warmup, repeats, experiment.settings, cpus
    )
    for workers in counts or (1,):
        CssExperiment(request.config_of(workers)).check(workers)
    return request


def doubling(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... as far as there is room."""
    return tuple(2**power for power in range(most.bit_length()))


def fit_to_slots(request: ScaleRequest, slots: Slots) -> ScaleRequest:
    """Return the request with worker counts: those asked for, or all of 1, 2, 4, ... that fit and share the batch.

    Raises:
        UsageError: more workers are asked for than fit.
    """
    if request.counts and request.counts[-1] > slots.count:
        raise UsageError(
            f"--workers must be at most the {slots.words} there are, got {request.counts[-1]}: workers "
            "that share one would be measured waiting for each other; ask for less, or join a cluster with --address"
        )
    return request if request.counts else replace(request, counts=tuple(filter(request.fits, doubling(slots.count))))


def run_scaling(
    request: ScaleRequest,
    storage: Path,
    name: str | None,
    address: str,
    tracking_uri: str | None,
    console: Console,
    mlflow_experiment: str = EXPERIMENT,
) -> Scaling:
    """Measure, record, fit, predict, write the files into a new folder below the storage, and show them.

    Raises:
        UsageError: the workers do not fit, or the name or the tracking URI is refused.
        MeasurementError: a point could not be measured.
        KeyboardInterrupt: the measurement was interrupted.
    """
    if address == "local":
        request = fit_to_slots(request, local_slots(request.cpus))
    experiment = CssExperiment(request.config, request.preset, request.settings)
    uri = absolute_uri(tracking_uri)
    check_store(uri)
    with (
        new_run(storage, name, f"scale-{request.preset}") as folder,
        ray_session(address, cpus=cores() if address == "local" else None, say=console.say),
    ):
        for line in experiment.describe():
            console.say(line)
        slots = cluster_slots(request.cpus)
        request = fit_to_slots(request, slots)
        check_nodes(folder)
        hosts = sum(node.resources.get(slots.unit, 0) >= 1 for node in cluster_nodes().nodes)
        console.say(
            f"{folder.name}: {request.mode} scaling of {request.preset} over "
            f"{', '.join(map(str, request.counts))} worker{'' if request.counts == (1,) else 's'}, "
            f"{counted(request.repeats, 'repeat')} of {counted(request.total_steps, 'step')} each"
        )
        console.say(f"results in {folder}, records at {uri}")
        info = RunInfo.of("scale", experiment, METRIC, request.as_plain())
        write_run(folder, info)
        with recording(
            folder, info, uri, tags_of(folder, info, experiment, mode=request.mode), console,
            mlflow_experiment, metric=METRIC,
            trial_tags=lambda trial: {"s4.kind": "point", "s4.workers": str(trial.overrides["workers"])},
        ) as recorder:  # fmt: skip
            record = ScaleRecord(recorder, request)

            def on_sample(workers: int, repeat: int, sample: Sample) -> None:
                record.add_sample(workers, repeat, sample)
                title = f"[{repeat + 1}/{request.repeats}] {counted(workers, 'worker')}"
                console.say(f"{title}: {sample[METRIC]:.1f} images/s")

            samples = measure_all(request, folder / GANGS, slots.unit == "GPU", on_sample)
            shutil.rmtree(folder / GANGS, ignore_errors=True)  # nothing in it is worth keeping
            scaling = summarise(request, samples, folder.name, slots.unit, hosts, uri)
            draw_curve(scaling, folder / CURVE)
            write(folder, scaling)
            record.finish(scaling)
            for name in (*FILES, CURVE):
                recorder.file(folder / name)
            recorder.note("\n\n".join([*lines(scaling), f"    {command_line()}"]))
    console.table(to_table(scaling))
    for line in (*lines(scaling), f"curve: {folder / CURVE}"):
        console.say(line)
    console.result({**to_json(scaling), "folder": str(folder)})
    return scaling


def summarise(
    request: ScaleRequest, samples: Mapping[int, list[Sample]], name: str, unit: str, hosts: int, uri: str
) -> Scaling:
    """Return the points of the samples, with the model and its predictions where there can be one."""
    images = {n: request.images_of(n) for n in PREDICTED if n not in samples and request.fits(n)}
    fit: Fit | None
    try:
        fit, unfitted = fit_all(request.mode, samples, images), ""
    except NotIdentifiedError as error:
        fit, unfitted = None, str(error)
    return Scaling(name, request.as_plain(), unit, hosts, tuple(gather_points(samples)), fit, unfitted, uri)


def measure_all(request: ScaleRequest, folder: Path, use_gpu: bool, on_sample: OnSample) -> Mapping[int, list[Sample]]:
    """Measure every point as often as asked; return the samples by workers. A Ray session must be active.

    Raises:
        MeasurementError: the reason.
        KeyboardInterrupt: the measurement was interrupted.
    """
    samples: dict[int, list[Sample]] = {workers: [] for workers in request.counts}
    for repeat in range(request.repeats):
        # Back and forth, so that a slow drift of the machine falls on all points alike.
        for workers in request.counts if repeat % 2 == 0 else reversed(request.counts):
            sample = _measure(request, workers, folder / f"{repeat}-{workers}", use_gpu)
            samples[workers].append(sample)
            on_sample(workers, repeat, sample)
    return samples


def _measure(request: ScaleRequest, workers: int, folder: Path, use_gpu: bool) -> Sample:
    config = request.config_of(workers)
    experiment = ScaleExperiment(config, request.images_of(workers), request.steps, request.blocks, request.warmup)
    allocation = Allocation(workers_per_gang=workers, worker=WorkerResources(use_gpu, request.cpus))
    try:
        end = run_jobs(Jobs(folder, experiment, ({},), allocation, single=True, retries=1, hang_timeout_s=None))
    except GangsBrokenError as error:
        raise MeasurementError(str(error)) from None
    (trial,) = end.trials
    if trial.state is not TrialState.COMPLETE:
        raise MeasurementError(trial.error or end.reason)
    return trial.metrics


class ScaleRecord:
    """The records of one measurement: a parent run, and a child a number of workers."""

    def __init__(self, recorder: MlflowRecorder, request: ScaleRequest) -> None:
        self._recorder, self._request = recorder, request
        self._points: dict[int, Trial] = {}
        config = request.config.model_dump(mode="json")
        for name, data in (("request.yaml", dict(request.as_plain())), ("config.yaml", config)):
            recorder.artifact(name, yaml.safe_dump(data, sort_keys=False))

    def add_sample(self, workers: int, repeat: int, sample: Sample) -> None:
        """Record one repeat of a point, at step `repeat` + 1."""
        trial = self._points.get(workers) or self._start(workers)
        trial.metrics = {"step": float(repeat + 1), **{f"repeat/{name}": sample[name] for name in SHOWN}}
        self._recorder.on_report(trial)

    def finish(self, scaling: Scaling) -> None:
        """Record the points, which are medians over their repeats."""
        for point in scaling.points:
            trial, values = self._points[point.workers], asdict(point)
            metrics = {name: float(values[name]) for name in (*SHOWN, "efficiency", "compute_s")}
            trial.take_in({"step": float(point.repeats), **metrics}, point.images_per_s)
            self._recorder.on_report(trial)
            trial.state = TrialState.COMPLETE
            self._recorder.on_end(trial)

    def _start(self, workers: int) -> Trial:
        config = self._request.config_of(workers)
        trial = self._points[workers] = Trial(
            number=self._request.counts.index(workers),
            params={},
            overrides={"workers": workers},
            config_hash=config.hash,
            config={**config.model_dump(mode="json"), "scale": {**self._request.as_plain(), "workers": workers}},
        )
        self._recorder.on_start(trial)
        return trial
