"""Record of a search or a training: what its folder holds, also while its driver is at work or after it died.

Parts that are missing or cannot be read are named in `Record.missing`; it is an error only where there is nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.experiment import CssExperiment
from harness.ledger import LEDGER, History, Span, Timeline, Times, read_ledger
from harness.reporting.results import FILES, Collector, Results, Row, read_results
from harness.run_folder import RunInfo, kind_of, read_run
from harness.trials import Trial, TrialState
from harness.tuning.config import recorded_space
from harness.tuning.objectives import parse_objectives
from search_spaces import Space
from trainers.errors import UsageError

Reports = Mapping[int, Mapping[str, float]]
"""Metrics of a trial's reports, by step, ascending."""


@dataclass(frozen=True)
class Record:
    """Everything that a report of a search or a training is made from."""

    folder: Path
    results: Results
    trials: Mapping[int, Trial]
    """By number, ascending."""
    reports: Mapping[int, Reports]
    """By trial; empty where there is no ledger."""
    times: Times
    device_s: float | None
    """Seconds that devices were held, times their number; none where nobody wrote it down."""
    info: RunInfo | None
    """What it began with; none where that is not known."""
    missing: Sequence[str] = field(default_factory=list)
    """What could not be read, a sentence each."""

    @property
    def name(self) -> str:
        """The name of the search or training."""
        return self.results.name

    @property
    def maximise(self) -> bool:
        """Whether more of the primary objective is better."""
        return not (self.results.objectives and self.results.objectives[0].endswith(":min"))

    @property
    def own(self) -> bool:
        """Whether its experiment is known to be another than this project's trainer, which has no commands."""
        return self.info is not None and self.info.trainer != CssExperiment.trainer

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of a search; empty where they are not known."""
        return self.info.request.get("options", {}) if self.info else {}

    @cached_property
    def space(self) -> Space | None:
        """The search space; none of a training."""
        return _space(self.info)

    @property
    def unfinished(self) -> bool:
        """Whether trials are missing or can go on."""
        rows, planned = self.results.rows, self.options.get("trials")
        return any(row.state in ("RUNNING", "INTERRUPTED") for row in rows) or bool(planned and len(rows) < planned)


def read_record(folder: Path) -> Record:
    """Read what is in the folder of a search or a training.

    Raises:
        UsageError: there are no results, not even unfinished ones.
    """
    results, missing = read_or_rebuild(folder), list[str]()
    info, times = None, Times()
    try:
        info = read_run(folder)
    except UsageError as error:
        missing.append(f"What was asked for is not known: {error}")
    history, reports = History(), dict[int, Reports]()
    try:
        maximise = not (results.objectives and results.objectives[0].endswith(":min"))
        history, reports, times = read_course(folder / LEDGER, maximise)
    except (UsageError, OSError) as error:
        missing.append(f"The ledger cannot be read, so curves, rungs and device-hours are missing: {error}")
    if not history.trials and results.rows and not missing:
        missing.append(f"There is no ledger (`{LEDGER}`), so curves, rungs and device-hours are missing.")
    elif not times.spans and not missing:
        missing.append(f"The ledger (`{LEDGER}`) holds no times: version 0.1 wrote it.")
    trials = history.trials or {row.number: _trial(row, results.metric) for row in results.rows}
    trials = dict(sorted(trials.items()))
    return Record(folder, results, trials, reports, times, history.device_s or None, info, missing)


def read_or_rebuild(folder: Path) -> Results:
    """Return the results of a search or a training; where its driver is at work or was killed, those so far.

    Raises:
        UsageError: there are none.
    """
    written, ledger = folder / FILES[0], folder / LEDGER
    behind = ledger.exists() and (not written.exists() or written.stat().st_mtime < ledger.stat().st_mtime)
    kind = kind_of(folder) if behind else None
    if kind == "search" or (kind == "train" and not written.exists()):
        return _rebuilt(folder, read_run(folder))
    return read_results(folder)


def _rebuilt(folder: Path, info: RunInfo) -> Results:
    objectives = parse_objectives(info.request.get("options", {}).get("objective") or [info.metric])
    history, space = read_ledger(folder / LEDGER, objectives[0].maximise), _space(info)
    paths = space.paths if space else ()
    return Results(
        name=folder.name, kind=info.kind, preset=info.preset, space=space.name if space else None,
        metric=objectives[0].metric, horizon=info.horizon, elapsed_s=history.elapsed_s, tracking_uri="", paths=paths,
        rows=Collector(history.trials.values()).rows(paths, objectives), objectives=[str(item) for item in objectives],
        ours=bool(space and space.ours), published=space is None or bool(space.source),
    )  # fmt: skip


def _space(info: RunInfo | None) -> Space | None:
    return recorded_space(info) if info and info.request.get("space") else None


def read_course(path: Path, maximise: bool = True) -> tuple[History, dict[int, Reports], Times]:
    """Return what a ledger tells, the reports in it, of a step that was done twice the later one, and its times.

    Raises:
        UsageError: it is not a ledger.
        OSError: it cannot be read.
    """
    by_trial, timeline = dict[int, dict[int, Mapping[str, float]]](), Timeline()

    def take_report(event: Mapping[str, Any]) -> None:
        if event["event"] == "report":
            metrics = {sys.intern(name): value for name, value in event["metrics"].items()}
            by_trial.setdefault(event["trial"], {})[int(metrics.get("step", 0))] = metrics

    history = read_ledger(path, maximise, (take_report, timeline.follow))
    reports: dict[int, Reports] = {number: dict(sorted(steps.items())) for number, steps in by_trial.items()}
    return history, reports, timeline.times()


def _trial(row: Row, metric: str) -> Trial:
    trial = Trial(row.number, {}, row.values, row.config_hash, state=TrialState(row.state), error=row.error)
    trial.metrics = {"step": float(row.step), **row.final}
    if row.best is not None and row.best_step is not None:
        trial.best = {"value": row.best, "step": float(row.best_step)}
        trial.metrics.setdefault(metric, row.best)
    return trial


def lanes(spans: Sequence[Span]) -> list[int]:
    """Return a lane for each span, the lowest that is free: as many lanes as trials ran at once."""
    free_at, taken = list[float](), list[int]()
    for span in spans:
        lane = next((index for index, end in enumerate(free_at) if end <= span.start_s), len(free_at))
        free_at[lane : lane + 1] = [span.end_s]
        taken.append(lane)
    return taken
