"""Contents of an ablation's folder for its report, and the style of variants and numbers in all its sections."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.ablation.request import read_request
from harness.ablation.results import RESULTS, Ablation, Outcome, collect, read_results
from harness.ledger import LEDGER, Times, json_lines, read_ledger
from harness.reporting.record import Reports, read_course
from harness.reporting.themes import Theme
from harness.run_folder import LATE_SPLITS, RUN, checkpoint_folder, evaluation_file, read_run
from harness.tracking.stores import OUTBOX
from trainers.errors import DataError, UsageError

if TYPE_CHECKING:
    from trainers.image_evaluation import ImageEvaluation

JUDGED = "val/miou"
"""What variants are judged by where nothing says otherwise."""
DECIMALS = 4
"""Of scores in tables and texts."""
MARKS = ("o", "^", "D", "v", "P", "X", "h")
LINES = ("-", "-.", ":")
"""Of others than the base; the next one where the colours begin again."""
LONGEST = 26
"""Letters of a variant's name in a figure."""


@dataclass(frozen=True)
class AblationRecord:
    """Everything that the report of an ablation is made from."""

    ablation: Ablation
    folder: Path
    reports: Mapping[int, Reports]
    """By the number of the run; empty where there is no ledger."""
    times: Times = Times()
    revision: str = ""
    """Commit of the code that began it; "" where that is not known."""
    missing: Sequence[str] = field(default_factory=list)
    """What could not be read, a sentence each."""

    @property
    def metric(self) -> str:
        """What variants are judged by."""
        return self.ablation.metric

    @property
    def split(self) -> str:
        """The images that they are judged on: `val` or `dev`."""
        return self.metric.partition("/")[0]

    @property
    def base(self) -> str:
        """The variant that others are compared with; of a crossing plan its level in each group."""
        return self.ablation.request.base

    def base_of(self, variant: str) -> str:
        """Return the name of the variant that this one is compared with."""
        return self.ablation.request.base_of(variant)

    @property
    def variants(self) -> list[str]:
        """Names of the variants of which trainings were asked for, the base among them, in the order of the table."""
        return [variant.name for variant in self.ablation.request.tried]

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of variants that are compared apart; one, "", but of a crossing plan."""
        return self.ablation.request.groups

    @cached_property
    def complete(self) -> dict[str, list[Outcome]]:
        """Runs of each variant that reached the horizon, by seed in the order of training."""
        runs = [run for run in self.ablation.outcomes if run.state == "COMPLETE"]
        return {name: [run for run in runs if run.variant == name] for name in self.variants}

    @cached_property
    def unscored(self) -> list[str]:
        """Variants that were trained and have no score on the judged images: nobody evaluated them there."""
        return [name for name, runs in self.complete.items() if runs and not self.ablation.scores(name, self.metric)]

    def trial_folder(self, run: Outcome) -> Path:
        """Return where the checkpoint and the evaluations of a run lie."""
        return checkpoint_folder(self.folder / "trials", run.number)

    def evaluations(self, variant: str) -> dict[int, ImageEvaluation]:
        """Return a variant's confusion matrices of the judged images, by seed, as far as they lie there."""
        files = {run.seed: evaluation_file(self.trial_folder(run), self.split) for run in self.complete[variant]}
        evaluations = {seed: _evaluation(path) for seed, path in files.items()}
        return {seed: evaluation for seed, evaluation in evaluations.items() if evaluation is not None}

    def curve(self, variant: str, metric: str) -> dict[int, list[float]]:
        """Return values by step, one a complete run; only steps at which all of them that report it have a value."""
        reports = [self.reports.get(run.number, {}) for run in self.complete[variant]]
        points = []
        for run in reports:
            values = {step: metrics.get(metric, math.nan) for step, metrics in run.items()}
            points.append({step: value for step, value in values.items() if math.isfinite(value)})
        points = [run for run in points if run]
        steps = sorted(set.intersection(*map(set, points))) if points else []
        return {step: [run[step] for run in points] for step in steps}

    @cached_property
    def reported(self) -> list[str]:
        """Names of all metrics in the reports of complete runs, in the order in which they first came."""
        reports = [self.reports.get(run.number, {}) for runs in self.complete.values() for run in runs]
        return list(dict.fromkeys(name for steps in reports for metrics in steps.values() for name in metrics))


def read_ablation(folder: Path) -> Ablation:
    """Return an ablation; where its driver is at work or was killed, as far as it is.

    Raises:
        UsageError: it has not begun to train, or its files are something else.
    """
    written = folder / RESULTS
    sources = [path for path in (folder / LEDGER, folder / RUN) if path.exists()]
    if written.exists() and all(path.stat().st_mtime <= written.stat().st_mtime for path in sources):
        return read_results(folder)
    request = read_request(folder)
    if not (folder / LEDGER).exists():
        return read_results(folder)
    history = read_ledger(folder / LEDGER)
    whole = [number for number, trial in history.trials.items() if trial.state == "COMPLETE"]
    late = {number: _late_scores(checkpoint_folder(folder / "trials", number)) for number in whole}
    metric, uri = _judged_by(folder)
    outcomes = collect(request, history.trials, late)
    return Ablation(folder.name, request, outcomes, metric, uri, history.elapsed_s, history.device_s)


def read_record(ablation: Ablation, folder: Path) -> AblationRecord:
    """Return an ablation with everything beside it; what cannot be read is named in `missing`."""
    missing, reports, times = list[str](), dict[int, Reports](), Times()
    try:
        _, reports, times = read_course(folder / LEDGER)
    except (OSError, UsageError) as error:
        missing.append(f"The ledger (`{LEDGER}`) cannot be read, so there are no curves: {error}.")
    if not reports and not missing:
        missing.append(f"There are no reports in the ledger (`{LEDGER}`), so there are no curves.")
    revision = ""
    with contextlib.suppress(UsageError):
        revision = read_run(folder).revision
    record = AblationRecord(ablation, folder, reports, times, revision, missing)
    runs = [run for runs in record.complete.values() for run in runs if record.metric not in run.metrics]
    names = [run.variant if run.variant in record.unscored else f"{run.variant}, seed {run.seed}" for run in runs]
    if names:
        missing.append(f"Trained, but without {record.metric}, so not compared: {'; '.join(dict.fromkeys(names))}.")
    return record


def _evaluation(path: Path) -> ImageEvaluation | None:
    from trainers.image_evaluation import load_image_evaluation

    try:
        return load_image_evaluation(path) if path.exists() else None
    except DataError:
        return None


def _late_scores(folder: Path) -> dict[str, float]:
    """Return the scores that a training got when it was over, as far as their files are there and can be read."""
    from harness.models.evaluation import metrics_of

    found = {split: _evaluation(evaluation_file(folder, split)) for split in LATE_SPLITS}
    scores = [metrics_of(evaluation, split) for split, evaluation in found.items() if evaluation is not None]
    return {name: value for metrics in scores for name, value in metrics.items()}


def _judged_by(folder: Path) -> tuple[str, str]:
    """Return the metric that variants are judged by, and where records go, as far as any file tells."""
    with contextlib.suppress(UsageError):
        before = read_results(folder)
        return before.metric, before.tracking_uri
    try:
        opened = next((line for line in json_lines(folder / OUTBOX) if line.get("op") == "open"), {})
        return str(opened.get("tags", {}).get("s4.objective", JUDGED)), ""
    except (OSError, ValueError, AttributeError):
        return JUDGED, ""


def line_style(record: AblationRecord, variant: str, theme: Theme) -> dict[str, Any]:
    """Return colour, line and mark of a variant: the base in ink and dashed, others in the order of the table.

    Of a crossing plan the colour and the mark are those of the level, the same in each group.
    """
    if variant == record.base_of(variant):
        return {"color": theme.ink, "linestyle": "--", "marker": "s"}
    levels = {name: record.ablation.request.variant(name).level for name in record.ablation.others}
    place = list(dict.fromkeys(levels.values())).index(levels[variant])
    turn, colour = divmod(place, len(theme.series))
    line, mark = LINES[turn % len(LINES)], MARKS[place % len(MARKS)]
    return {"color": theme.series[colour], "linestyle": line, "marker": mark}


def short(variant: str) -> str:
    """Return a name that fits into a figure."""
    return variant if len(variant) <= LONGEST else f"{variant[: LONGEST - 1]}…"


def plus_minus(mean: float | None, std: float | None) -> str | None:
    """Return `mean ± std`; the mean alone where one seed has no spread."""
    if mean is None:
        return None
    return f"{mean:.{DECIMALS}f}" + ("" if std is None else f" ± {std:.{DECIMALS}f}")


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"{value:+.{DECIMALS}f}"


def interval(low: float | None, high: float | None) -> str | None:
    """Return `[low, high]` of a difference."""
    return None if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def with_interval(value: float | None, low: float | None, high: float | None) -> str | None:
    """Return `difference [low, high]`; the difference alone where too few seeds have no interval."""
    return None if value is None else " ".join(filter(None, [signed(value), interval(low, high)]))


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
