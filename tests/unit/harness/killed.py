"""A driver that can be killed between any two writes, and the world that outlives it: files and a tracking server.

The driver's code is the real one. Ray, the gangs and MLflow's client are stand-ins in this process: a gang trains a
step a report and saves it, a server keeps what it is told. Every write, rename, removal, new folder and request is a
point at which the driver can die: nothing of it happens after, not even what `finally` would do, and a line that it was
writing is left half.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invented.scalings import sample
from mlflow.exceptions import MlflowException

from harness import one_driver, run_folder, session
from harness.api import trainings
from harness.cluster import Slots
from harness.gangs import jobs, starting
from harness.gangs.messages import Job, Report
from harness.one_driver import Lock
from harness.reporting import reports
from harness.run_folder import LATEST, TRIALS, checkpoint_folder, write_whole
from harness.scaling import session as scaling
from harness.start import Start
from harness.tracking import recorder, source
from harness.tracking.outbox import Operation, Outbox
from harness.tracking.writer import MlflowWriter
from harness.trials import Experiment

HORIZON = 2


class Killed(BaseException):
    """The driver is dead."""


class Death:
    """Counts the points at which the driver can die, and lets it die at one."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.points = 0
        self.dead = False

    def point(self) -> None:
        """Die here, if it is here, or has been before."""
        self.points += 1
        if self.dead or self.points - 1 == self.at:
            self.dead = True
            raise Killed


class Files:
    """A file that is open for writing; dying in a write leaves half of it."""

    def __init__(self, file: Any, death: Death) -> None:
        self._file, self._death = file, death

    def write(self, data: Any) -> int:
        try:
            self._death.point()
        except Killed:
            if self._death.points - 1 == self._death.at:
                self._file.write(data[: len(data) // 2])
                self._file.flush()
            raise
        written: int = self._file.write(data)
        return written

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Server:
    """What of MLflow's client the writer calls, with runs in memory; each call that writes is a request."""

    def __init__(self, death: Death) -> None:
        self._death = death
        self.runs: dict[str, Any] = {}
        self.experiment: Any = None

    def get_experiment_by_name(self, name: str) -> Any:
        return self.experiment

    def create_experiment(self, name: str, tags: Mapping[str, str], **_: object) -> str:
        self._death.point()
        self.experiment = SimpleNamespace(experiment_id="1", lifecycle_stage="active", tags=tags)
        return "1"

    def search_runs(self, experiments: Sequence[str], condition: str, **_: object) -> list[Any]:
        asked = [part.split(" = ") for part in condition.split(" and ")]
        wanted = {name.removeprefix("tags.").strip("`"): value.strip("'") for name, value in asked}
        return [run for run in self.runs.values() if wanted.items() <= run.data.tags.items()]

    def create_run(self, experiment: str, start: int, tags: Mapping[str, str], name: str) -> Any:
        self._death.point()
        info = SimpleNamespace(run_id=f"run-{len(self.runs)}", status="RUNNING", experiment_id=experiment)
        data, inputs = SimpleNamespace(tags=dict(tags), metrics={}, params={}), SimpleNamespace(dataset_inputs=[])
        run = SimpleNamespace(info=info, data=data, inputs=inputs, points=set())
        self.runs[info.run_id] = run
        return run

    def get_run(self, run_id: str) -> Any:
        return self.runs[run_id]

    def update_run(self, run_id: str, status: str) -> None:
        self._death.point()
        self.runs[run_id].info.status = status

    def set_terminated(self, run_id: str, status: str, end: int | None = None) -> None:
        self.update_run(run_id, status)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        self._death.point()
        data = self.runs[run_id].data
        for point in metrics:
            data.metrics[point.key] = point.value
            self.runs[run_id].points.add((point.key, point.step))
        for param in params:
            if data.params.setdefault(param.key, param.value) != param.value:
                raise MlflowException(f"{param.key} has another value")
        data.tags.update({tag.key: tag.value for tag in tags})

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith(("log_", "set_")):
            raise AttributeError(name)
        return lambda *_, **__: self._death.point()


class SenderInLine:
    """Sends at once, or as one that is slow does: everything when the driver ends."""

    def __init__(self, outbox: Outbox, connect: Callable[[], Any], slow: bool) -> None:
        self.applied = self.rejected = 0
        self.last_error: str | None = None
        self._outbox, self._apply, self._slow = outbox, connect(), slow
        self._waiting: list[tuple[Operation, int]] = []

    def send(self, operation: Operation, line: int) -> None:
        self._waiting.append((operation, line))
        if not self._slow:
            self._deliver()

    def close(self, timeout_s: float) -> bool:
        self._deliver()
        return True

    def _deliver(self) -> None:
        while self._waiting:
            operation, line = self._waiting[0]
            self._apply([operation])
            self._outbox.mark_done(line)
            self._waiting.pop(0)
            self.applied += 1


class Counting(Experiment):
    """A training that counts: its checkpoint is the number of steps, its score depends on them and on an override."""

    metric, horizon, report_every = "dev/miou", HORIZON, 1
    config: Mapping[str, Any] = {"x": 1.0, "seed": 0}

    def train(self, overrides: Mapping[str, Any], run: Any) -> None:
        raise AssertionError("the gang of this stand-in trains")

    def evaluate(self, overrides: Mapping[str, Any], folder: Path) -> dict[str, float]:
        assert (folder / LATEST).read_text() == str(HORIZON)
        return {"val/miou": 0.5 + overrides.get("x", 1.0) / 100 + overrides["seed"] / 1000}


class Gangs:
    """The Dispatcher and its gangs: the next report of a trial is a step further than its checkpoint."""

    def __init__(self, trained: list[tuple[str, int]]) -> None:
        self._trained, self._jobs = trained, dict[str, Job]()
        self.submit = SimpleNamespace(remote=lambda job: self._jobs.update({job.trial: job}))
        self.started = SimpleNamespace(remote=lambda: Start(gangs={0: {"report": 1.0}}))
        self.abort = SimpleNamespace(remote=lambda reason: None)
        self.next_report = SimpleNamespace(remote=lambda trial: lambda: self._next(trial))

    def _next(self, trial: str) -> Report:
        job = self._jobs[trial]
        path = Path(job.checkpoint_dir) / LATEST
        step = int(path.read_text()) if path.exists() else 0
        if step < HORIZON and (step <= job.last_step or not step):  # else it was saved, and its report or end was lost
            step += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".gang").write_text(str(step))
            path.with_suffix(".gang").rename(path)
            self._trained.append((trial, step))
        self._jobs[trial] = replace(job, last_step=step)
        score = 0.1 * step + float(job.overrides.get("x", 1.0)) / 100
        return Report({"step": float(step), "finished": float(step == HORIZON), "dev/miou": score})


class Pool(nullcontext[None]):
    """A pool of one gang."""

    gangs = workers = devices = 1
    broken = None


class World:
    """What outlives a driver: its folder, the server, what was trained."""

    def __init__(self, storage: Path, monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
        self.storage, self.death = storage, Death()
        self.server, self.trained = Server(self.death), list[tuple[str, int]]()
        self._slow, self._locks = slow, list[Lock]()
        self._patch(monkeypatch)
        self._patch_locks(monkeypatch)

    def _patch(self, patch: pytest.MonkeyPatch) -> None:
        def sender(outbox: Outbox, uri: str, header: Operation, *_: object) -> SenderInLine:
            made = SenderInLine(outbox, lambda: MlflowWriter(self.server, header).apply, self._slow)  # type: ignore[arg-type]
            for line, operation in enumerate([*outbox.operations()], start=1):
                if line > outbox.done():
                    made.send(operation, line)
            return made

        patch.setattr(recorder, "_start_sender", sender)
        for module in (source, run_folder):
            patch.setattr(module, "git_sha", lambda *_: "abc")
        slots = Slots(1, "CPU")
        for module in (trainings, session):
            patch.setattr(module, "ray_session", lambda *_, **__: nullcontext())
            patch.setattr(module, "cluster_slots", lambda *_: slots)
            patch.setattr(module, "local_slots", lambda *_: slots, raising=False)
        patch.setattr(session, "NodeMetrics", lambda *_: nullcontext())
        patch.setattr(reports, "report_on", self._report)
        patch.setattr(session, "evaluate_runs", _evaluate_here)
        for name, value in {
            "start_dispatcher": lambda *_: Gangs(self.trained), "end_dispatcher": lambda _: None,
            "GangPool": lambda *_, **__: Pool(), "check_fit": lambda *_: None, "check_nodes": lambda _: None,
            "machine": lambda _: {}, "NodeMonitor": lambda *_: SimpleNamespace(check=lambda: None, held={"CPU": 1.0}),
            "interruptible": lambda: nullcontext(threading.Event()),
            "call_with_retry": lambda method, *arguments: method.remote(*arguments),
            "ray": SimpleNamespace(wait=lambda futures, timeout: (futures[:1], []), get=lambda future: future()),
        }.items():  # fmt: skip
            patch.setattr(jobs, name, value)
        patch.setattr(starting, "call_with_retry", lambda method: method.remote())
        self._patch_scaling(patch, slots)
        self._patch_files(patch)

    def _patch_scaling(self, patch: pytest.MonkeyPatch, slots: Slots) -> None:
        def measure(request: Any, workers: int, *_: object) -> Mapping[str, float]:
            self.trained.append((f"{workers} workers", len(self.trained)))
            return sample(workers, 0.1, request.images_of(workers))

        for name, value in {
            "ray_session": lambda *_, **__: nullcontext(), "cluster_slots": lambda *_: slots,
            "local_slots": lambda *_: slots,
            "check_nodes": lambda _: None, "cluster_nodes": lambda: SimpleNamespace(nodes=()), "_measure": measure,
            "draw_curve": lambda scaling, path: write_whole(path, "a curve"), "check_store": lambda _: None,
        }.items():  # fmt: skip
            patch.setattr(scaling, name, value)

    def _patch_files(self, patch: pytest.MonkeyPatch) -> None:
        inside = str(self.storage)

        def guarded(name: str, owner: Any) -> None:
            plain = getattr(owner, name)

            def call(path: Any, *arguments: Any, **options: Any) -> Any:
                if inside in str(path) and not str(path).endswith((".gang", LATEST)):
                    self.death.point()
                return plain(path, *arguments, **options)

            patch.setattr(owner, name, call)

        for name in ("replace", "rename", "unlink", "mkdir", "rmdir"):
            guarded(name, os)
        patch.setattr(os, "fsync", lambda _: None)  # processes die here, and never the machine
        opened = io.open

        def open_(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            handle = opened(file, mode, *arguments, **options)
            ours = inside in str(file) and not str(file).endswith((".gang", ".lock"))
            return Files(handle, self.death) if ours and set(mode) & set("wax+") else handle

        patch.setattr(io, "open", open_)

    def _report(self, folder: Path) -> list[Path]:
        (folder / "report").mkdir(exist_ok=True)
        write_whole(folder / "report" / "report.html", "a page")
        return [folder / "report" / "report.html"]

    def _patch_locks(self, patch: pytest.MonkeyPatch) -> None:
        begin, release = Lock.__init__, Lock.release

        def begun(lock: Lock, path: Path) -> None:
            begin(lock, path)
            self._locks.append(lock)

        patch.setattr(Lock, "__init__", begun)
        patch.setattr(Lock, "release", lambda lock: lock._file.close() if self.death.dead else release(lock))

    @contextmanager
    def driver(self, dies_at: int | None = None) -> Iterator[None]:
        """Let a new driver live, up to a point; the system then lets go of its locks."""
        self.death.at, self.death.points, self.death.dead = dies_at, 0, False
        try:
            yield
        except Killed:
            pass
        finally:
            self.death.at, self.death.dead = None, False
            for lock in self._locks:
                lock._file.close()
            self._locks.clear()
            one_driver._driving.clear()


def _evaluate_here(
    folder: Path, experiment: Experiment, request: Any, runs: Sequence[Any], *_: object
) -> dict[int, dict[str, float]]:
    return {
        run.number: experiment.evaluate(
            request.overrides(request.runs[run.number]), checkpoint_folder(folder / TRIALS, run.number)
        )
        for run in runs
    }
