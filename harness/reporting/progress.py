"""How a search got on: the value of each trial in turn, and the course of each over its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.reporting.document import Block, Cell, Data, Figure, Note, Section
from harness.reporting.figures import baseline_handle, best_handle, best_star, legend, state_handles
from harness.reporting.themes import MARKERS, Theme

if TYPE_CHECKING:
    from harness.reporting.record import Record
    from harness.trials import Trial

CROWD = 40
"""Curves beyond which those of trials that did not finish are drawn thin."""


def progress(record: Record) -> Section:
    """Return the section."""
    trials = list(record.trials.values())
    blocks: list[Block] = []
    if any(_value(trial) is not None for trial in trials):
        blocks.append(_history(record))
    else:
        blocks.append(Note("No trial has reported a value, so there is no history to show.", "missing"))
    if any(len(trial.values) > 1 for trial in trials):
        blocks.append(_curves(record))
    return Section("Course of the search", blocks)


def best_so_far(record: Record) -> list[tuple[int, float]]:
    """Return trial numbers, and the best value of the complete trials up to each."""
    found: list[tuple[int, float]] = []
    better = max if record.maximise else min
    for number, trial in record.trials.items():
        value = _value(trial)
        if trial.state == "COMPLETE" and value is not None:
            found.append((number, better(value, found[-1][1]) if found else value))
    return found


def _value(trial: Trial) -> float | None:
    value = trial.best.get("value")
    return value if value is not None and math.isfinite(value) else None


def _history(record: Record) -> Figure:
    results, line = record.results, best_so_far(record)
    so_far = dict(line)
    rows, last = list[list[Cell]](), None
    for number, trial in record.trials.items():
        last = so_far.get(number, last)
        rows.append([number, str(trial.state), _value(trial), trial.step, last])
    best, baseline = results.best, results.baseline
    words = (
        f"the best is {best.best:.4f}, of trial {best.number}" if best and best.best is not None else "none finished"
    )

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        for state in dict.fromkeys(str(trial.state) for trial in record.trials.values()):
            points = [(number, _value(trial)) for number, trial in record.trials.items() if trial.state == state]
            points = [(number, value) for number, value in points if value is not None]
            if points:
                axes.scatter(*zip(*points, strict=True), marker=MARKERS[state], s=26, color=theme.states[state],
                             edgecolors=theme.paper, linewidths=0.5, zorder=3)  # fmt: skip
        lost = [number for number, trial in record.trials.items() if trial.state == "FAIL" and _value(trial) is None]
        axes.scatter(lost, [0.02] * len(lost), marker=MARKERS["FAIL"], s=26, color=theme.states["FAIL"],
                     transform=axes.get_xaxis_transform(), zorder=4)  # fmt: skip
        handles = state_handles([str(trial.state) for trial in record.trials.values()], theme)
        if line:
            steps = [*line, (max(record.trials), line[-1][1])]
            [curve] = axes.step(*zip(*steps, strict=True), where="post", color=theme.best, label="best so far")
            handles.append(curve)
        if baseline is not None and baseline.best is not None:
            axes.axhline(baseline.best, color=theme.ink, linestyle="--", linewidth=1.1, zorder=2)
            handles.append(baseline_handle(theme))
        if best is not None and best.best is not None:
            best_star(axes, best.number, best.best, theme)
            handles.append(best_handle(theme))
        axes.set_xlabel("trial")
        axes.set_ylabel(f"best {results.metric}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        legend(canvas, handles)

    return Figure(
        "history",
        f"Best value of {results.metric} that each trial reported, by its state. The line is the best complete trial "
        "so far; trials that were stopped early could not show what they would have reached.",
        f"Scatter of {results.metric} against the number of the trial; {words}.",
        paint,
        Data(["trial", "state", "value", "steps", "best_so_far"], rows),
    )  # fmt: skip


def _curves(record: Record) -> Figure:
    results = record.results
    best = results.best.number if results.best else None
    base = 0 if results.baseline is not None and best != 0 else None
    marked = {best, base}
    finite = {
        number: [(step, value) for step, value in trial.values if math.isfinite(value)]
        for number, trial in record.trials.items()
    }
    courses = {number: points for number, points in finite.items() if points}
    rows = [
        (number, str(trial.state), step, value)
        for number, trial in record.trials.items()
        for step, value in trial.values
    ]

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        for state in dict.fromkeys(str(trial.state) for trial in record.trials.values()):
            _bundle(axes, [points for number, points in courses.items()
                           if record.trials[number].state == state and number not in marked], state, theme,
                    crowd=len(courses) > CROWD)  # fmt: skip
        if base in courses:
            axes.plot(*zip(*courses[base], strict=True), color=theme.ink, linestyle="--", linewidth=1.6, zorder=4)
        if best in courses:
            axes.plot(*zip(*courses[best], strict=True), color=theme.best, linewidth=2.6, zorder=5)
            best_star(axes, *courses[best][-1], theme)
        others = [str(record.trials[number].state) for number in courses if number not in marked]
        handles = state_handles(others, theme, "line")
        if base in courses:
            handles.append(baseline_handle(theme))
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(results.metric)
        axes.set_xlim(left=0)
        legend(
            canvas, [*handles, *([best_handle(theme, f"best: trial {best}", line=True)] if best is not None else [])]
        )

    return Figure(
        "learning-curves",
        f"{results.metric} of every trial at each of its reports. Marks are where a trial ended.",
        f"Curves of {results.metric} over optimizer steps, one a trial, {len(record.trials)} in all.",
        paint,
        Data(["trial", "state", "step", "value"], rows),
        (7.6, 4.3),
    )


def _bundle(axes: Any, courses: Sequence[Sequence[tuple[int, float]]], state: str, theme: Theme, crowd: bool) -> None:
    """Draw the curves of one state, and a mark at the end of each; thin ones where there are many."""
    from matplotlib.collections import LineCollection

    if not courses:
        return
    color, zorder = theme.states[state], 3 if state == "COMPLETE" else 2
    lines = LineCollection(courses, colors=color, linewidths=0.7 if crowd else 1.2, alpha=0.5 if crowd else 0.9,
                           zorder=zorder)  # fmt: skip
    axes.add_collection(lines)
    axes.scatter(*zip(*(points[-1] for points in courses), strict=True), marker=MARKERS[state], color=color,
                 s=9 if crowd else 20, edgecolors=theme.paper, linewidths=0.4, zorder=zorder)  # fmt: skip
    axes.autoscale_view()
