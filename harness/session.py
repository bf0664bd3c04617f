"""Session of a recorded run: its recorder, its progress, its results and its report, whatever kind of run it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.console import Console, Tally, show_progress
from harness.event_log import History
from harness.reporting.results import Collector, Results, summary, to_table, write_results
from harness.reporting.search import report_on
from harness.run_folder import PICTURE, RunInfo
from harness.search.objectives import Objective
from harness.tracking.node_metrics import NodeMetrics
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.stores import EXPERIMENT, OUTBOX, absolute_uri, default_tracking_uri
from harness.tracking.views import Chart
from harness.trials import Experiment, TrialObserver
from search_spaces import Space


@dataclass(frozen=True)
class Session:
    """A search or a training, checked and ready to start or to go on."""

    folder: Path
    """Absolute; its name is the run's."""
    info: RunInfo
    experiment: Experiment
    tracking_uri: str
    console: Console
    objectives: Sequence[Objective]
    """The primary one first."""
    total: int = 1
    """Trials."""
    space: Space | None = None
    earlier: History = field(default_factory=History)
    """What earlier sessions left."""

    def announce(self, *lines: str) -> None:
        """Say what begins, and where it goes."""
        for line in (*lines, f"results in {self.folder}, records at {self.tracking_uri}"):
            self.console.say(line)


def tracking_uri_of(given: str | None) -> str:
    """Return the URI to record at: the given one, or the SQLite store in the working directory."""
    return absolute_uri(given or default_tracking_uri())


def tags_of(folder: Path, info: RunInfo, experiment: Experiment, **more: str) -> dict[str, str]:
    """Return the tags of all MLflow runs of a run."""
    data = {"s4.data": experiment.data, "s4.data_digest": info.data_digest} if info.data_digest else {}
    return {
        "s4.preset": info.preset,
        **data,
        "s4.objective": info.metric,
        "s4.horizon": str(info.horizon),
        "s4.folder": str(folder),
        **{f"s4.{name}": value for name, value in more.items()},
    }


@contextmanager
def recording(
    folder: Path, info: RunInfo, tracking_uri: str, tags: Mapping[str, str], console: Console, **options: Any
) -> Iterator[MlflowRecorder]:
    """Yield the recorder of a run; what was begun is continued. At the end nothing is left RUNNING.

    Args:
        options: of `MlflowRecorder`.
    """
    recorder = MlflowRecorder(tracking_uri, EXPERIMENT, info.kind, folder.name, tags, folder / OUTBOX, **options)
    try:
        with recorder:
            yield recorder
    finally:
        delivery = recorder.close()
        if delivery.note:
            console.say(f"tracking: {delivery.note}")


@contextmanager
def watching(recorder: MlflowRecorder, tally: Tally, console: Console) -> Iterator[TrialObserver]:
    """Yield the observer that shows progress; meanwhile the nodes' load is recorded."""
    with NodeMetrics(recorder.system), show_progress(console, tally) as progress:
        yield progress


def record_session(session: Session, work: Callable[[Sequence[TrialObserver]], object], report: bool = True) -> Results:
    """Run `work` with the observers of a session, and return the results. They are written whatever happens.

    Raises:
        BaseException: what `work` raises; the records say so.
    """
    info, folder, console = session.info, session.folder, session.console
    objective, space = session.objectives[0], session.space
    earlier, started = list(session.earlier.trials.values()), time.monotonic() - session.earlier.elapsed_s
    collector, paths = Collector(earlier), space.paths if space else ()
    tally = Tally(session.total, info.horizon, objective.metric, earlier=earlier, maximise=objective.maximise)
    tags = tags_of(folder, info, session.experiment, **({"space": space.name} if space else {}))
    with recording(
        folder, info, session.tracking_uri, tags, console, metric=objective.metric, maximise=objective.maximise
    ) as recorder:
        _record_inputs(recorder, session)
        recorder.close_finished(earlier)
        try:
            with watching(recorder, tally, console) as progress:
                work([recorder, collector, progress])
        finally:
            results = Results(
                name=folder.name, kind=info.kind, preset=info.preset, space=space.name if space else None,
                metric=objective.metric, horizon=info.horizon, elapsed_s=time.monotonic() - started,
                tracking_uri=session.tracking_uri, paths=paths, rows=collector.rows(paths, session.objectives),
                objectives=[str(objective) for objective in session.objectives],
            )  # fmt: skip
            write_results(folder, results)
            _record_outputs(recorder, session, results)
        page = leave_report(folder, recorder, console) if report else None
    show(results, console)
    if page is not None:
        console.say(f"report: {page}")
    return results


def show(results: Results, console: Console) -> None:
    """Write the table of results and its summary."""
    console.rich.print(to_table(results))
    for line in summary(results):
        console.say(line)


def leave_report(folder: Path, recorder: MlflowRecorder, console: Console) -> Path | None:
    """Write the report and record its files; return the page, none where it failed: no run is lost for a picture."""
    try:
        files = report_on(folder)
        for file in files:
            recorder.file(file, folder=file.parent.relative_to(folder).as_posix())
    except (Exception, KeyboardInterrupt) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        console.say(f"no report: {why}; s4 report {folder.name} tries again")
        return None
    return files[0]


def _record_inputs(recorder: MlflowRecorder, session: Session) -> None:
    session.experiment.record_inputs(recorder, session.folder)
    recorder.artifact("config.yaml", yaml.safe_dump(dict(session.info.config), sort_keys=False))
    if session.space is not None:
        recorder.artifact("space.yaml", session.space.text)


def _record_outputs(recorder: MlflowRecorder, session: Session, results: Results) -> None:
    if session.space is not None:
        metric = session.objectives[0].metric
        charts = [metric, "train/loss/total", "quality/mix/miou", "quality/logit/miou", "health/predicted_entropy"]
        order = f"best/{metric.replace('/', '_')}"
        recorder.view("runs", "tags.`s4.kind` = 'trial'", order, [Chart(name, "LINE") for name in charts])
        if results.best is not None:
            overrides = {**session.info.settings, **session.space.fixed, **results.best.values}
            recorder.artifact("best_overrides.yaml", yaml.safe_dump(overrides, sort_keys=False))
    for file in ("results.csv", "results.md"):
        recorder.artifact(file, (session.folder / file).read_text(encoding="utf-8"))
    if (session.folder / PICTURE).exists():
        recorder.file(session.folder / PICTURE)
