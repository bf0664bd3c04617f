"""Searches and trainings that never were, written as real ones are: ledger, manifest, outbox and results."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.cli.wish import Wish
from harness.event_log import LEDGER, Ledger, read_ledger
from harness.reporting.results import Collector, Results, write_results
from harness.search.manifest import Manifest, Origin, write_manifest, write_origin
from harness.search.objectives import parse_objectives
from harness.tracking.stores import OUTBOX
from harness.trials import Trial, TrialState
from search_spaces import Space, load_space
from trainers.config import TrainConfig
from trainers.overrides import apply_overrides

METRIC, SECOND = "dev/miou", "time/step_s"
HORIZON, EVERY = 120, 20
SHA = "0123456789abcdef"


@dataclass(frozen=True)
class Course:
    """What a trial did."""

    state: TrialState = TrialState.COMPLETE
    values: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    """Of the objective, at steps 20, 40, ..."""
    error: str | None = None
    more: Mapping[str, float] = field(default_factory=dict)
    """Metrics of every report besides."""


COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
SEARCH = (
    Course(values=(0.10, 0.15, 0.20, 0.30, 0.40, 0.50)),
    Course(values=(0.12, 0.20, 0.30, 0.45, 0.55, 0.625)),
    Course(PRUNED, (0.05,)),
    Course(values=(0.11, 0.18, 0.28, 0.35, 0.45, 0.56)),
    Course(PRUNED, (0.09, 0.12, 0.14)),
    Course(FAIL, (0.10,), "Traceback\n  File ...\nDivergedError: loss is nan | at step 31 <b>"),
)
"""A baseline, four others, and one that failed."""


def params_of(space: Space, number: int) -> dict[str, object]:
    """Raw params of a trial: the baseline's, or some that move with the number."""
    params = dict(space.baseline_params)
    if number:
        params["loss.lambda_u"] = 0.2 * 25 ** ((number * 0.37) % 1)
        params["thresholds.delta_u"] = 0.6 + 0.39 * ((number * 0.61) % 1)
        params["css.label_strategy"] = ("logit", "mix", "cross")[number % 3]
    return params


def made_search(
    folder: Path,
    courses: Sequence[Course] = SEARCH,
    *,
    ended: bool = True,
    objectives: Sequence[str] = (METRIC,),
    scheduler: str = "asha",
    sessions: int = 1,
    outbox: bool = True,
) -> Path:
    """Write a search; one that did not end has no results and asked for ten trials more."""
    space, config = load_space("css_quick"), made_config()
    wish = made_wish(len(courses) + (0 if ended else 10), objectives, scheduler)
    folder.mkdir(parents=True)
    write_manifest(folder, Manifest("digits_css", {"schedule.steps": HORIZON}, config, "d1ge57", space, METRIC, wish))
    sought = parse_objectives(objectives)
    ledger, lines = Ledger(folder / LEDGER, METRIC), []
    for number, course in enumerate(courses):
        params = params_of(space, number)
        trial = Trial(number, params, space.overrides(params), f"hash{number}")
        write_course(ledger, trial, course, lines, begins=1000.0 * (sessions > 1 and number >= len(courses) // 2))
    ledger.spent(90.0, 180.0)
    ledger.close()
    if outbox:
        write_outbox(folder, lines, sessions)
    if ended:
        collector = Collector(read_ledger(folder / LEDGER, sought[0].maximise).trials.values())
        write_results(folder, Results(
            folder.name, "search", "digits_css", space.name, METRIC, HORIZON, 90.0, "sqlite:///x.db", space.paths,
            collector.rows(space.paths, sought), [str(one) for one in sought],
        ))  # fmt: skip
    return folder


def made_training(folder: Path, steps: int = HORIZON) -> Path:
    """Write a training; one with fewer steps than the horizon was killed."""
    config = made_config()
    folder.mkdir(parents=True)
    write_origin(folder, Origin("digits_css", {}, config, "d1ge57"))
    ledger, lines, ended = Ledger(folder / LEDGER, METRIC), [], steps == HORIZON
    values = [0.1 + 0.004 * step for step in range(EVERY, steps + 1, EVERY)]
    more = {"train/loss/total": 1.5, "train/loss/contrast": 4.0, "train/share/valid": 0.5, "quality/mix/miou": 0.3,
            "quality/logit/miou": 0.2, "quality/agreement": 0.6, "health/teacher_student_gap": 0.07,
            "dev/iou/background": 0.9, "dev/iou/seven_8": 0.25, "time/step_s": 0.15}  # fmt: skip
    trial = Trial(0, {}, {}, "hash0")
    write_course(ledger, trial, Course(COMPLETE if ended else TrialState.RUNNING, values, more=more), lines)
    ledger.spent(60.0, 60.0)
    ledger.close()
    write_outbox(folder, lines, 1)
    if ended:
        rows = Collector(read_ledger(folder / LEDGER).trials.values()).rows(())
        results = Results(folder.name, "train", "digits_css", None, METRIC, HORIZON, 60.0, "sqlite:///x.db", (), rows)
        write_results(folder, results)
    return folder


def made_config() -> TrainConfig:
    return apply_overrides(TrainConfig(), {"schedule.steps": HORIZON, "schedule.evaluate_every": EVERY})


def made_wish(trials: int, objectives: Sequence[str], scheduler: str) -> dict[str, object]:
    return dict(
        Wish(
            space="css_quick", trials=trials, gangs=2, workers_per_gang=1, scheduler=scheduler, sampler="tpe",
            objective=list(objectives), constraint=[], grace_steps=None, reduction_factor=3, perturb_steps=None,
            grid_points=3, seed=0, warm_start=None, stop_collapsed=True, terminator=False, max_hours=None,
            max_device_hours=None, keep_checkpoints=5, max_checkpoint_gib=None, retries=2, hang_minutes=60.0,
            recycle_after=200,
        ).__dict__
    )  # fmt: skip


def write_course(
    ledger: Ledger, trial: Trial, course: Course, lines: list[dict[str, object]], begins: float = 0.0
) -> None:
    """Write a trial into the ledger, and operations with times into `lines`: two trials at once, 10 s each."""
    start = begins + 10.0 * (trial.number // 2)
    ledger.on_start(trial)
    lines.append({"op": "start", "trial": trial.number, "time": start})
    for index, value in enumerate(course.values):
        step = EVERY * (index + 1)
        metrics = {"step": float(step), METRIC: value, SECOND: 0.2 - 0.01 * trial.number, **course.more}
        metrics |= {"overhead/start_s": 0.1} if index == 0 else {"overhead/report_s": 0.02}
        trial.take_in(metrics, value if math.isfinite(value) else None)
        ledger.on_report(trial)
        lines.append({"op": "report", "trial": trial.number, "time": start + index + 1})
    if course.state is not TrialState.RUNNING:
        trial.state, trial.error = course.state, course.error
        ledger.on_end(trial)
        tags = {"s4.state": str(course.state)}
        lines.append({"op": "end", "trial": trial.number, "time": start + 9.0, "tags": tags})


def write_outbox(folder: Path, lines: Sequence[Mapping[str, object]], sessions: int) -> None:
    """Write the operations in the order of their times; a second session begins 1000 s after the first."""
    opened = [{"op": "open", "tags": {"s4.git_sha": SHA}, "time": 1000.0 * index} for index in range(sessions)]
    ordered = sorted([*opened, *lines], key=lambda line: (line["time"], line["op"] != "open"))
    stamped = [{**line, "time": int(1e12 + 1000 * float(str(line["time"])))} for line in ordered]
    (folder / OUTBOX).write_text("".join(json.dumps(line) + "\n" for line in stamped), encoding="utf-8")
