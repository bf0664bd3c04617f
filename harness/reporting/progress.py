"""Progress of a search: the value of each trial in turn, and the curve of each over its steps."""

from __future__ import annotations

import math
from typing import Any

from harness.reporting.curves import Curve, paint_panels
from harness.reporting.document import Block, Cell, Data, Figure, Note, Section
from harness.reporting.figures import baseline_handle, best_handle, best_star, legend, state_handles
from harness.reporting.records import Record
from harness.reporting.themes import MARKERS, Theme
from harness.trials import Trial

CROWD = 40
"""Curves beyond which those of trials that did not finish are drawn thin."""


def progress(record: Record) -> Section:
    """Return the section."""
    trials = record.trials.values()
    if any(_value(trial) is not None for trial in trials):
        blocks: list[Block] = [_history(record)]
    else:
        blocks = [Note("No trial has reported a value, so there is no history to show.", "missing")]
    if any(len(trial.values) > 1 for trial in trials):
        blocks.append(_curves(record))
    return Section("Course of the search", blocks)


def best_so_far(record: Record) -> list[tuple[int, float]]:
    """Return trial numbers, and the best value of the complete trials up to each."""
    best: list[tuple[int, float]] = []
    better = max if record.maximise else min
    for number, trial in record.trials.items():
        value = _value(trial)
        if trial.state == "COMPLETE" and value is not None:
            best.append((number, better(value, best[-1][1]) if best else value))
    return best


def _value(trial: Trial) -> float | None:
    value = trial.best.get("value")
    return value if value is not None and math.isfinite(value) else None


def _history(record: Record) -> Figure:
    results, line = record.results, best_so_far(record)
    metric, best, baseline, so_far = results.metric, results.best, results.baseline, dict(line)
    rows, last = list[list[Cell]](), None
    for number, trial in record.trials.items():
        last = so_far.get(number, last)
        rows.append([number, str(trial.state), _value(trial), trial.step, last])
    words = "none finished"
    if best is not None and best.best is not None:
        words = f"the best is {best.best:.4f}, of trial {best.number}"

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        for number, trial in record.trials.items():
            value, state = _value(trial), str(trial.state)
            style = {"marker": MARKERS[state], "s": 26, "color": theme.states[state]}
            if value is not None:
                axes.scatter(number, value, edgecolors=theme.paper, linewidths=0.5, zorder=3, **style)
            elif state == "FAIL":  # at the lower edge
                axes.scatter(number, 0.02, transform=axes.get_xaxis_transform(), zorder=4, **style)
        handles = state_handles([str(trial.state) for trial in record.trials.values()], theme)
        if line:
            steps = [*line, (max(record.trials), line[-1][1])]
            handles += axes.step(*zip(*steps, strict=True), where="post", color=theme.best, label="best so far")
        if baseline is not None and baseline.best is not None:
            axes.axhline(baseline.best, color=theme.ink, linestyle="--", linewidth=1.1, zorder=2)
            handles.append(baseline_handle(theme))
        if best is not None and best.best is not None:
            best_star(axes, best.number, best.best, theme)
            handles.append(best_handle(theme))
        axes.set_xlabel("trial")
        axes.set_ylabel(f"best {metric}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        legend(canvas, handles)

    return Figure(
        "history",
        f"Best value of {metric} that each trial reported, by its state. The line is the best complete trial "
        "so far; trials that were stopped early could not show what they would have reached.",
        f"Scatter of {metric} against the number of the trial; {words}.",
        paint,
        Data(["trial", "state", "value", "steps", "best_so_far"], rows),
    )  # fmt: skip


def _curves(record: Record) -> Figure:
    metric, trials = record.results.metric, record.trials
    best = record.results.best.number if record.results.best else None
    base = 0 if record.results.baseline is not None and best != 0 else None
    rows = [(number, str(trial.state), *point) for number, trial in trials.items() for point in trial.values]
    finite = {number: [point for point in trial.values if math.isfinite(point[1])] for number, trial in trials.items()}
    points = {number: values for number, values in finite.items() if values}
    states = [str(trials[number].state) for number in points if number not in (best, base)]

    def paint(canvas: Any, theme: Theme) -> None:
        styles: dict[int | None, dict[str, Any]] = {
            number: _style(str(trials[number].state), len(points) > CROWD, theme) for number in points
        }
        styles[base] = {"color": theme.ink, "linestyle": "--", "linewidth": 1.6, "zorder": 4}
        styles[best] = {"color": theme.best, "linewidth": 2.6, "zorder": 5}
        curves = [Curve(values, styles[number]) for number, values in points.items()]
        [axes] = paint_panels(canvas, [("", curves)], y_label=metric)
        handles = state_handles(states, theme, "line")
        if base in points:
            handles.append(baseline_handle(theme))
        if best in points:
            best_star(axes, *points[best][-1], theme)
        if best is not None:
            handles.append(best_handle(theme, f"best: trial {best}", line=True))
        legend(canvas, handles)

    return Figure(
        "learning-curves",
        f"{metric} of every trial at each of its reports. Marks are where a trial ended.",
        f"Curves of {metric} over optimizer steps, one a trial, {len(trials)} in all.",
        paint,
        Data(["trial", "state", "step", "value"], rows),
        (7.6, 4.3),
    )


def _style(state: str, crowd: bool, theme: Theme) -> dict[str, Any]:
    """Return the style of a trial's curve, with a mark at its end; thin where there are many."""
    color = theme.states[state]
    return {
        "color": (color, 0.5 if crowd else 0.9), "linewidth": 0.7 if crowd else 1.2, "marker": MARKERS[state],
        "markevery": [-1], "markersize": 3 if crowd else 4.5, "markerfacecolor": color,
        "markeredgecolor": theme.paper, "markeredgewidth": 0.4, "zorder": 3 if state == "COMPLETE" else 2,
    }  # fmt: skip
