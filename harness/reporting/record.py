"""What a search or a training left in its folder, read for a report, also while its driver is at work or when it died.

Parts that are missing or cannot be read are named in `Record.missing`; it is an error only where there is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.event_log import LEDGER, History, read_ledger
from harness.reporting.results import FILES, Collector, Results, Row, read_results
from harness.run_folder import json_lines
from harness.search.manifest import SEARCH, TRAINING, Manifest, Origin, read_manifest, read_origin
from harness.tracking.stores import OUTBOX
from harness.trials import Trial, TrialState
from trainers.errors import UsageError

if TYPE_CHECKING:
    from search_spaces import Space

Reports = Mapping[int, Mapping[str, float]]
"""Metrics of a trial's reports, by step, ascending."""


class Span(NamedTuple):
    """A time during which a trial was trained. A trial that was interrupted has several."""

    trial: int
    start_s: float
    """Since the beginning, with the time between two sessions left out."""
    end_s: float
    state: str
    """How it ended; `INTERRUPTED` where nothing says so."""


class Times(NamedTuple):
    """What the outbox tells of time."""

    spans: Sequence[Span]
    """In order of their beginnings."""
    sessions: Sequence[float]
    """Seconds at which drivers began; the first one at 0."""
    git_sha: str | None
    began_unix: float | None
    """When the first driver began."""


NO_TIMES = Times((), (), None, None)


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
    origin: Origin | None
    """What it began with: a `Manifest` for a search."""
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
    def plan(self) -> Mapping[str, Any]:
        """Options of the search; empty where they are not known."""
        return self.origin.plan if isinstance(self.origin, Manifest) else {}

    @property
    def space(self) -> Space | None:
        """The search space; none of a training."""
        return self.origin.space if isinstance(self.origin, Manifest) else None

    @property
    def unfinished(self) -> bool:
        """Whether trials are missing or can go on."""
        rows, planned = self.results.rows, self.plan.get("trials")
        return any(row.state in ("RUNNING", "INTERRUPTED") for row in rows) or bool(planned and len(rows) < planned)

    @property
    def every(self) -> int | None:
        """Optimizer steps between two reports."""
        return self.origin.config.schedule.evaluate_every if self.origin else None


def read_record(folder: Path) -> Record:
    """Read what is in the folder of a search or a training.

    Raises:
        UsageError: there are no results, not even unfinished ones.
    """
    results, missing = read_or_rebuild(folder), list[str]()
    origin = _origin(folder, missing)
    history, reports = History(), dict[int, Reports]()
    try:
        history = read_ledger(folder / LEDGER, not (results.objectives and results.objectives[0].endswith(":min")))
        reports = read_reports(folder / LEDGER)
    except (UsageError, OSError) as error:
        missing.append(f"The ledger cannot be read, so curves, rungs and device-hours are missing: {error}")
    if not history.trials and results.rows and not missing:
        missing.append(f"There is no ledger (`{LEDGER}`), so curves, rungs and device-hours are missing.")
    trials = history.trials or {row.number: _trial(row, results.metric) for row in results.rows}
    return Record(
        folder=folder,
        results=results,
        trials=dict(sorted(trials.items())),
        reports=reports,
        times=_times(folder, missing),
        device_s=history.device_s or None,
        origin=origin,
        missing=missing,
    )


def read_or_rebuild(folder: Path) -> Results:
    """Return the results of a search or a training; where its driver is at work or was killed, those so far.

    Raises:
        UsageError: there are none.
    """
    written, ledger = folder / FILES[0], folder / LEDGER
    behind = ledger.exists() and (not written.exists() or written.stat().st_mtime < ledger.stat().st_mtime)
    if behind and (folder / SEARCH).exists():
        manifest = read_manifest(folder)
        return _rebuilt(folder, "search", manifest, manifest.space, [str(one) for one in manifest.objectives])
    if behind and (folder / TRAINING).exists() and not written.exists():
        from harness.experiment import CssExperiment

        origin = read_origin(folder)
        return _rebuilt(folder, "train", origin, None, [f"{CssExperiment(origin.config).metric}:max"])
    return read_results(folder)


def _rebuilt(folder: Path, kind: str, origin: Origin, space: Space | None, objectives: list[str]) -> Results:
    """Return the results as far as the ledger tells them."""
    from harness.search.objectives import parse_objectives

    sought = parse_objectives(objectives)
    history = read_ledger(folder / LEDGER, sought[0].maximise)
    paths = space.paths if space else ()
    return Results(
        name=folder.name, kind=kind, preset=origin.preset, space=space.name if space else None,
        metric=sought[0].metric, horizon=origin.config.schedule.steps, elapsed_s=history.elapsed_s, tracking_uri="",
        paths=paths, rows=Collector(history.trials.values()).rows(paths, sought), objectives=objectives,
    )  # fmt: skip


def _origin(folder: Path, missing: list[str]) -> Origin | None:
    try:
        return read_manifest(folder) if (folder / SEARCH).exists() else read_origin(folder)
    except UsageError as error:
        missing.append(f"What was asked for is not known: {error}")
        return None


def _times(folder: Path, missing: list[str]) -> Times:
    try:
        found = read_times(folder / OUTBOX)
    except (OSError, ValueError, KeyError, TypeError) as error:
        missing.append(f"The outbox cannot be read, so times are missing: {error}")
        return NO_TIMES
    if not found.spans:
        missing.append(f"The outbox (`{OUTBOX}`) holds no trials, so times are missing.")
    return found


def read_reports(path: Path) -> dict[int, Reports]:
    """Return the reports in a ledger, by trial; of a step that was done twice the later one.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is not a ledger.
    """
    found: dict[int, dict[int, Mapping[str, float]]] = {}
    for event in json_lines(path):
        if event["event"] == "report":
            found.setdefault(event["trial"], {})[int(event["metrics"].get("step", 0))] = event["metrics"]
    return {number: dict(sorted(reports.items())) for number, reports in found.items()}


def _trial(row: Row, metric: str) -> Trial:
    """Return what a table says of a trial."""
    trial = Trial(row.number, {}, row.values, row.config_hash, state=TrialState(row.state), error=row.error)
    trial.metrics = {"step": float(row.step), **row.final}
    if row.best is not None and row.best_step is not None:
        trial.best = {"value": row.best, "step": float(row.best_step)}
        trial.metrics.setdefault(metric, row.best)
    return trial


def read_times(outbox: Path) -> Times:
    """Return the times in an outbox; none where there is no outbox.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is not an outbox.
    """
    clock, spans, sessions = _Clock(), list[Span](), list[float]()
    open_trials: dict[int, tuple[float, float]] = {}
    git_sha, began = None, None
    for operation in json_lines(outbox):
        now, number = clock.at(operation), operation.get("trial")
        match operation["op"]:
            case "open":
                spans += [Span(trial, start, last, "INTERRUPTED") for trial, (start, last) in open_trials.items()]
                open_trials.clear()
                sessions.append(now)
                began = began or operation["time"] / 1000
                git_sha = operation.get("tags", {}).get("s4.git_sha", git_sha)
            case "start" if number is not None:
                open_trials[number] = open_trials.get(number, (now, now))
            case "report" if number in open_trials:
                open_trials[number] = (open_trials[number][0], now)
            case "end" if number in open_trials:
                start, _ = open_trials.pop(number)
                spans.append(Span(number, start, now, operation["tags"].get("s4.state", "INTERRUPTED")))
    spans += [Span(trial, start, last, "INTERRUPTED") for trial, (start, last) in open_trials.items()]
    return Times(sorted(spans, key=lambda span: (span.start_s, span.trial)), sessions, git_sha, began)


def lanes(spans: Sequence[Span]) -> list[int]:
    """Return a lane for each span, the lowest that is free: as many lanes as trials ran at once."""
    free_at: list[float] = []
    found = []
    for span in spans:
        lane = next((index for index, end in enumerate(free_at) if end <= span.start_s), len(free_at))
        free_at[lane : lane + 1] = [span.end_s]
        found.append(lane)
    return found


class _Clock:
    """Seconds since the first operation, without the time between two sessions."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._behind = 0.0
        """Unix time at which the clock shows 0."""

    def at(self, operation: dict[str, Any]) -> float:
        stamp = float(operation["time"]) / 1000
        if self._last is None:
            self._behind = stamp
        elif operation["op"] == "open":
            self._behind += max(0.0, stamp - self._last)
        self._last = max(stamp, self._last or stamp)
        return max(0.0, stamp - self._behind)
