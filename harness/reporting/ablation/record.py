"""What an ablation left in its folder, read for its report, also while its driver is at work or when it died."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.ablation.evaluate import evaluation_file
from harness.ablation.request import REQUEST, read_request
from harness.ablation.results import RESULTS, Ablation, collect, read_results
from harness.event_log import LEDGER, read_ledger
from harness.models.evaluation import metrics_of
from harness.reporting.record import NO_TIMES, Reports, Times, read_reports, read_times
from harness.run_folder import checkpoint_folder, json_lines
from harness.tracking.stores import OUTBOX
from trainers.errors import DataError, UsageError

if TYPE_CHECKING:
    from harness.ablation.results import Outcome
    from trainers.image_evaluation import ImageEvaluation

JUDGED = "val/miou"
"""What variants are judged by where nothing says otherwise."""


@dataclass(frozen=True)
class AblationRecord:
    """Everything that the report of an ablation is made from."""

    found: Ablation
    folder: Path
    reports: Mapping[int, Reports]
    """By the number of the run; empty where there is no ledger."""
    times: Times = NO_TIMES
    missing: Sequence[str] = field(default_factory=list)
    """What could not be read, a sentence each."""

    @property
    def metric(self) -> str:
        """What variants are judged by."""
        return self.found.metric

    @property
    def split(self) -> str:
        """The images that they are judged on: `val` or `dev`."""
        return self.metric.partition("/")[0]

    @property
    def variants(self) -> list[str]:
        """Names of all variants, the base among them, in the order of the table."""
        return [variant.name for variant in self.found.request.variants]

    @cached_property
    def complete(self) -> dict[str, list[Outcome]]:
        """Runs of each variant that reached the horizon, by seed in the order of training."""
        whole = [run for run in self.found.outcomes if run.state == "COMPLETE"]
        return {name: [run for run in whole if run.variant == name] for name in self.variants}

    def trial_folder(self, run: Outcome) -> Path:
        """Return where the checkpoint and the looks of a run lie."""
        return checkpoint_folder(self.folder / "trials", run.number)

    def looks(self, variant: str) -> dict[int, ImageEvaluation]:
        """Return a variant's confusion matrices of the judged images, by seed, as far as they lie there."""
        files = {run.seed: evaluation_file(self.trial_folder(run), self.split) for run in self.complete[variant]}
        seen = {seed: _look(path) for seed, path in files.items()}
        return {seed: look for seed, look in seen.items() if look is not None}

    def curve(self, variant: str, metric: str) -> dict[int, list[float]]:
        """Return values by step, one a complete run; only steps at which all of them that report it have a value."""
        reports = [self.reports.get(run.number, {}) for run in self.complete[variant]]
        points = [
            {step: values[metric] for step, values in run.items() if math.isfinite(values.get(metric, math.nan))}
            for run in reports
        ]
        points = [run for run in points if run]
        steps = sorted(set.intersection(*(set(run) for run in points))) if points else []
        return {step: [run[step] for run in points] for step in steps}

    @cached_property
    def reported(self) -> list[str]:
        """Names of all metrics in the reports of complete runs, in the order in which they first came."""
        whole = [run.number for runs in self.complete.values() for run in runs]
        return list(
            dict.fromkeys(
                name for number in whole for metrics in self.reports.get(number, {}).values() for name in metrics
            )
        )


def read_ablation(folder: Path) -> Ablation:
    """Return what an ablation found; where its driver is at work or was killed, what it found so far.

    Raises:
        UsageError: it has not begun to train, or its files are something else.
    """
    written = folder / RESULTS
    books = [path for path in (folder / LEDGER, folder / REQUEST) if path.exists()]
    if written.exists() and all(path.stat().st_mtime <= written.stat().st_mtime for path in books):
        return read_results(folder)
    request = read_request(folder)
    if not (folder / LEDGER).exists():
        return read_results(folder)
    history = read_ledger(folder / LEDGER)
    late = {}
    for number, trial in history.trials.items():
        seen = _look(evaluation_file(checkpoint_folder(folder / "trials", number), "val"))
        if seen is not None and str(trial.state) == "COMPLETE":
            late[number] = metrics_of(seen, "val")
    outcomes = collect(request, history.trials, late)
    metric, uri = _asked(folder)
    return Ablation(folder.name, request, outcomes, metric, uri, history.elapsed_s, history.device_s)


def read_record(found: Ablation, folder: Path) -> AblationRecord:
    """Return what an ablation found with everything beside it; what cannot be read is named in `missing`."""
    missing, reports, times = list[str](), dict[int, Reports](), NO_TIMES
    try:
        reports = read_reports(folder / LEDGER)
    except (OSError, ValueError, KeyError, TypeError) as error:
        missing.append(f"The ledger (`{LEDGER}`) cannot be read, so there are no curves: {error}.")
    if not reports and not missing:
        missing.append(f"There are no reports in the ledger (`{LEDGER}`), so there are no curves.")
    try:
        times = read_times(folder / OUTBOX)
    except (OSError, ValueError, KeyError, TypeError) as error:
        missing.append(f"The outbox (`{OUTBOX}`) cannot be read, so its times are missing: {error}.")
    record = AblationRecord(found, folder, reports, times, missing)
    missing += _not_looked_at(record)
    return record


def _not_looked_at(record: AblationRecord) -> list[str]:
    """Return in a sentence which complete runs have no score on the judged images; none: an empty list."""
    runs = [run for runs in record.complete.values() for run in runs if record.metric not in run.metrics]
    if not runs:
        return []
    names = "; ".join(f"{run.variant}, seed {run.seed}" for run in runs)
    return [f"Trained, but without {record.metric}, so not compared: {names}."]


def _look(path: Path) -> ImageEvaluation | None:
    """Return confusion matrices; none where there is no such file, or no whole one."""
    from trainers.image_evaluation import load_image_evaluation

    if not path.exists():
        return None
    try:
        return load_image_evaluation(path)
    except DataError:
        return None


def _asked(folder: Path) -> tuple[str, str]:
    """Return the metric that variants are judged by, and where records go, as far as any file tells."""
    try:
        before = read_results(folder)
        return before.metric, before.tracking_uri
    except UsageError:
        pass
    try:
        opened = next((line for line in json_lines(folder / OUTBOX) if line.get("op") == "open"), {})
        return str(opened.get("tags", {}).get("s4.objective", JUDGED)), ""
    except (OSError, ValueError, AttributeError):
        return JUDGED, ""
