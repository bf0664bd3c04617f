"""What a search and a training have in common: recorded, shown while it runs, and its results written at the end."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from harness.cli.report import show
from harness.console import Console, Tally, show_progress
from harness.event_log import History
from harness.search.objectives import Objective
from harness.tracking.stores import EXPERIMENT, OUTBOX, absolute_uri, default_tracking_uri
from harness.tracking.views import Chart

if TYPE_CHECKING:
    from harness.reporting.results import Results
    from harness.tracking.recorder import MlflowRecorder
    from harness.trials import TrialObserver, Value
    from search_spaces import Space
    from trainers.config import TrainConfig

PICTURE = "predictions.png"
"""Image, truth, prediction and pseudo-labels; a training leaves one in its folder."""


@dataclass(frozen=True)
class Task:
    """A search or a training, checked and ready to start."""

    kind: Literal["search", "train"]
    folder: Path
    """Absolute; its name is the task's."""
    preset: str
    config: TrainConfig
    settings: Mapping[str, Value]
    """What was set by hand."""
    tracking_uri: str
    objectives: tuple[Objective, ...]
    """The primary one first."""
    total: int
    """Trials."""
    space: Space | None = None
    earlier: History = field(default_factory=History)
    """What earlier sessions of a search that is resumed left."""

    @property
    def objective(self) -> Objective:
        """The primary one."""
        return self.objectives[0]

    @property
    def paths(self) -> tuple[str, ...]:
        """Config paths that the results show."""
        return self.space.paths if self.space else ()


def conduct(task: Task, console: Console, work: Callable[[Sequence[TrialObserver]], object]) -> Results:
    """Run `work` with the observers of the task, and return the results. They are written whatever happens.

    Raises:
        BaseException: what `work` raises; the records say so.
    """
    from harness.reporting.results import Collector, Results, to_json, write_results
    from harness.tracking.node_metrics import NodeMetrics
    from harness.tracking.recorder import MlflowRecorder

    earlier = list(task.earlier.trials.values())
    collector, started = Collector(earlier), time.monotonic() - task.earlier.elapsed_s
    tally = Tally(
        task.total, task.config.schedule.steps, task.objective.metric, earlier=earlier, maximise=task.objective.maximise
    )
    name = task.folder.name
    recorder = MlflowRecorder(
        task.tracking_uri,
        EXPERIMENT,
        task.kind,
        name,
        tags(task),
        task.folder / OUTBOX,
        metric=task.objective.metric,
        maximise=task.objective.maximise,
    )
    try:
        with recorder:
            _record_inputs(recorder, task)
            recorder.close_finished(earlier)
            try:
                with NodeMetrics(recorder.system), show_progress(console, tally) as progress:
                    work([recorder, collector, progress])
            finally:
                results = Results(
                    name=name, kind=task.kind, preset=task.preset, space=task.space.name if task.space else None,
                    metric=task.objective.metric, horizon=task.config.schedule.steps,
                    elapsed_s=time.monotonic() - started,
                    tracking_uri=task.tracking_uri, paths=task.paths, rows=collector.rows(task.paths, task.objectives),
                    objectives=[str(objective) for objective in task.objectives],
                )  # fmt: skip
                write_results(task.folder, results)
                _record_outputs(recorder, task, results)
            page = leave_report(task.folder, recorder, console)
    finally:
        delivery = recorder.close()
        if delivery.note:
            console.say(f"tracking: {delivery.note}")
    show(console, results)
    if page is not None:
        console.say(f"report: {page}")
    console.say(f"again: {further(task.folder, task.tracking_uri)}")
    console.result({**to_json(results), "folder": str(task.folder)})
    return results


def leave_report(folder: Path, recorder: MlflowRecorder, console: Console) -> Path | None:
    """Write the report and record its files; return the page, none where it failed: no search is lost for a picture."""
    from harness.reporting.search import report_on

    try:
        files = report_on(folder)
        for file in files:
            recorder.file(file, folder=file.parent.relative_to(folder).as_posix())
    except (Exception, KeyboardInterrupt) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        console.say(f"no report: {why}; s4 report {folder.name} tries again")
        return None
    return files[0]


def further(folder: Path, tracking_uri: str) -> str:
    """Return the commands that show more of what lies in a folder, as they must be typed here."""
    s4, name = program(), folder.name
    return f"{s4} report {name}{_storage(folder)}    records: {s4} ui {name}{_tracking(tracking_uri)}"


def resuming(task: Task) -> str:
    """Return the command that goes on with a search, as it must be typed here."""
    command = "tune" if task.kind == "search" else task.kind
    return (
        f"{program()} {command} --resume --name {task.folder.name}{_storage(task.folder)}{_tracking(task.tracking_uri)}"
    )


def _storage(folder: Path) -> str:
    storage = folder.parent
    return "" if storage == Path("runs").resolve() else f" --storage {storage}"


def _tracking(tracking_uri: str) -> str:
    return "" if tracking_uri == default_tracking_uri() else f" --tracking-uri {tracking_uri}"


def program() -> str:
    """Return how this command was called, where it is not found by its name alone: `.venv/bin/s4`."""
    called = sys.argv[0]
    return called if Path(called).name == "s4" and shutil.which("s4") != shutil.which(called) else "s4"


def tracking_uri_of(given: str | None) -> str:
    """Return the URI to record at: the given one, or the SQLite store in the working directory."""
    return absolute_uri(given or default_tracking_uri())


def tags(task: Task) -> dict[str, str]:
    """Return the tags of all runs of the task."""
    from trainers.data.splits import open_splits

    found = {
        "s4.preset": task.preset,
        "s4.data": task.config.data.name,
        "s4.data_digest": open_splits(task.config.data).digest,
        "s4.objective": task.objective.metric,
        "s4.horizon": str(task.config.schedule.steps),
        "s4.folder": str(task.folder),
    }
    return {**found, "s4.space": task.space.name} if task.space else found


def _record_inputs(recorder: MlflowRecorder, task: Task) -> None:
    from harness.tracking.run_logger import record_data
    from trainers.data.splits import open_splits, write_splits

    write_splits(open_splits(task.config.data), task.folder / "splits")
    record_data(recorder, task.config)
    recorder.artifact("config.yaml", yaml.safe_dump(task.config.model_dump(mode="json"), sort_keys=False))
    if task.space is not None:
        recorder.artifact("space.yaml", task.space.text)


def _record_outputs(recorder: MlflowRecorder, task: Task, results: Results) -> None:
    if task.kind == "search":
        metric = task.objective.metric
        charts = [metric, "train/loss/total", "quality/mix/miou", "quality/logit/miou", "health/predicted_entropy"]
        order = f"best/{metric.replace('/', '_')}"
        recorder.view("runs", "tags.`s4.kind` = 'trial'", order, [Chart(name, "LINE") for name in charts])
    for file in ("results.csv", "results.md"):
        recorder.artifact(file, (task.folder / file).read_text(encoding="utf-8"))
    if (task.folder / PICTURE).exists():
        recorder.file(task.folder / PICTURE)
    if results.best is not None and task.space is not None:
        overrides = {**task.settings, **task.space.fixed, **results.best.values}
        recorder.artifact("best_overrides.yaml", yaml.safe_dump(overrides, sort_keys=False))
