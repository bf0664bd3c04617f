"""Searches and trainings that never were, written as real ones are: run.yaml, ledger and results."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.ledger import LEDGER, Ledger, read_ledger
from harness.reporting.results import Collector, Results, write_results
from harness.run_folder import Kind, RunInfo, write_run
from harness.trials import Trial, TrialState
from harness.tuning.config import SearchConfig
from harness.tuning.objectives import parse_objectives
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
    drift: float = 0.0
    """By what share these become less from report to report."""


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
    if number and space.name != "css_quick":
        return {**params, **{item.name: item.ends[number % len(item.ends)] for item in space.parameters}}
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
    times: bool = True,
    space: Space | None = None,
) -> Path:
    """Write a search; one that did not end has no results and asked for ten trials more."""
    space = space or load_space("css_quick")
    options = SearchConfig.of(
        space=space.name, trials=len(courses) + (0 if ended else 10), gangs=2, objective=objectives, scheduler=scheduler
    ).model_dump(mode="json")
    folder.mkdir(parents=True)
    write_run(folder, made_info("search", {"schedule.steps": HORIZON}, {"options": options, "space": space.text}))
    sought, clock = parse_objectives(objectives), Clock()
    ledger = Ledger(folder / LEDGER, METRIC, clock)
    for number, course in enumerate(courses):
        params = params_of(space, number)
        trial = Trial(number, params, space.overrides(params), f"hash{number}")
        write_course(ledger, clock, trial, course, begins=1000.0 * (sessions > 1 and number >= len(courses) // 2))
    ledger.spent(90.0, 180.0)
    ledger.close()
    order_ledger(folder, sessions, times)
    if ended:
        collector = Collector(read_ledger(folder / LEDGER, sought[0].maximise).trials.values())
        write_results(folder, Results(
            folder.name, "search", "digits_css", space.name, METRIC, HORIZON, 90.0, "sqlite:///x.db", space.paths,
            collector.rows(space.paths, sought), [str(one) for one in sought],
            published=bool(space.source),
        ))  # fmt: skip
    return folder


def made_training(folder: Path, steps: int = HORIZON) -> Path:
    """Write a training; one with fewer steps than the horizon was killed."""
    folder.mkdir(parents=True)
    write_run(folder, made_info("train", {}, {}))
    clock, ended = Clock(), steps == HORIZON
    ledger = Ledger(folder / LEDGER, METRIC, clock)
    values = [0.1 + 0.004 * step for step in range(EVERY, steps + 1, EVERY)]
    more = {"train/loss/total": 1.5, "train/loss/contrast": 4.0, "train/share/valid": 0.5, "quality/mix/miou": 0.3,
            "quality/logit/miou": 0.2, "quality/agreement": 0.6, "health/teacher_student_gap": 0.07,
            "health/classes_without_prototype": 0.0,
            "dev/iou/background": 0.9, "dev/iou/seven_8": 0.25, "time/step_s": 0.15}  # fmt: skip
    trial = Trial(0, {}, {}, "hash0")
    write_course(ledger, clock, trial, Course(COMPLETE if ended else TrialState.RUNNING, values, more=more, drift=0.02))
    ledger.spent(60.0, 60.0)
    ledger.close()
    order_ledger(folder)
    if ended:
        rows = Collector(read_ledger(folder / LEDGER).trials.values()).rows(())
        results = Results(folder.name, "train", "digits_css", None, METRIC, HORIZON, 60.0, "sqlite:///x.db", (), rows)
        write_results(folder, results)
    return folder


def made_config() -> TrainConfig:
    return apply_overrides(TrainConfig(), {"schedule.steps": HORIZON, "schedule.evaluate_every": EVERY})


def made_info(kind: Kind, settings: Mapping[str, Any], request: Mapping[str, Any]) -> RunInfo:
    config = made_config()
    return RunInfo(
        kind, "digits_css", settings, "d1ge57", METRIC, HORIZON, EVERY, config.hash, config.model_dump(mode="json"),
        request, SHA,
    )  # fmt: skip


class Clock:
    """Seconds of what never was, since a day long ago."""

    now = 0.0

    def __call__(self) -> float:
        return 1e9 + self.now


def write_course(ledger: Ledger, clock: Clock, trial: Trial, course: Course, begins: float = 0.0) -> None:
    """Write a trial into the ledger: two trials at once, 10 s each."""
    clock.now = start = begins + 10.0 * (trial.number // 2)
    ledger.on_start(trial)
    for index, value in enumerate(course.values):
        step = EVERY * (index + 1)
        metrics = {"step": float(step), METRIC: value, SECOND: 0.2 - 0.01 * trial.number}
        metrics |= {name: number * (1 - course.drift * index) for name, number in course.more.items()}
        metrics |= {"overhead/start_s": 0.1} if index == 0 else {"overhead/report_s": 0.02}
        trial.take_in(metrics, value if math.isfinite(value) else None)
        clock.now = start + index + 1
        ledger.on_report(trial)
    if course.state is not TrialState.RUNNING:
        trial.state, trial.error = course.state, course.error
        clock.now = start + 9.0
        ledger.on_end(trial)


def order_ledger(folder: Path, sessions: int = 1, times: bool = True) -> None:
    """Put the events in the order of their times; a second session begins 1000 s after the first."""
    events = [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()]
    began = [{"event": "session", "trial": None, "time": 1e9 + 1000.0 * index} for index in range(sessions)]
    ordered = sorted([*began, *events], key=lambda event: (event["time"], event["event"] != "session"))
    if not times:
        ordered = [{key: event[key] for key in event if key != "time"} for event in events]
    (folder / LEDGER).write_text("".join(json.dumps(event) + "\n" for event in ordered), encoding="utf-8")
