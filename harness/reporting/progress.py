"""Progress of a search: values of its trials in turn, their curves, and the Pareto front of several objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.reporting.document import Block, Cell, Column, Data, Figure, Note, Section, Table
from harness.reporting.figures import (
    Curve,
    baseline_handle,
    best_handle,
    best_star,
    legend,
    paint_panels,
    state_handles,
    thinned,
)
from harness.reporting.record import Record
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
    states = {number: str(trial.state) for number, trial in record.trials.items()}
    values = {number: value for number, trial in record.trials.items() if (value := _value(trial)) is not None}
    rows, last = list[list[Cell]](), None
    for number, trial in record.trials.items():
        last = so_far.get(number, last)
        rows.append([number, states[number], values.get(number), trial.step, last])
    words = "none finished"
    if best is not None and best.best is not None:
        words = f"the best is {best.best:.4f}, of trial {best.number}"

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        for state in dict.fromkeys(states.values()):
            numbers = [number for number in values if states[number] == state]
            axes.scatter(numbers, [values[number] for number in numbers], marker=MARKERS[state], s=26,
                         color=theme.states[state], edgecolors=theme.paper, linewidths=0.5, zorder=3)  # fmt: skip
        lost = [number for number, state in states.items() if state == "FAIL" and number not in values]
        axes.scatter(lost, [0.02] * len(lost), marker=MARKERS["FAIL"], s=26, color=theme.states["FAIL"],
                     transform=axes.get_xaxis_transform(), zorder=4)  # fmt: skip
        handles = state_handles(states.values(), theme)
        if line:
            steps = [*line, (max(record.trials), line[-1][1])]
            handles += axes.step(*zip(*steps, strict=True), where="post", color=theme.best, label="best so far")
        if baseline is not None and baseline.best is not None:
            axes.axhline(baseline.best, color=theme.ink, linestyle="--", linewidth=1.1, zorder=2)
            handles.append(baseline_handle(theme, results.baseline_name))
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
    chosen, words = thinned([row.number for row in record.results.rows], {0})
    finite = {number: [point for point in trials[number].values if math.isfinite(point[1])]
              for number in trials if number in chosen}  # fmt: skip
    points = {number: values for number, values in finite.items() if values}
    states = [str(trials[number].state) for number in points if number not in (best, base)]

    def paint(canvas: Any, theme: Theme) -> None:
        crowd, styles = len(points) > CROWD, dict[int | None, dict[str, Any]]()
        styles |= {number: _style(str(trials[number].state), crowd, theme) for number in points}
        styles[base] = {"color": theme.ink, "linestyle": "--", "linewidth": 1.6, "zorder": 4}
        styles[best] = {"color": theme.best, "linewidth": 2.6, "zorder": 5}
        curves = [Curve(values, styles[number]) for number, values in points.items()]
        [axes] = paint_panels(canvas, [("", curves)], y_label=metric)
        handles = state_handles(states, theme, "line")
        if base in points:
            handles.append(baseline_handle(theme, record.results.baseline_name))
        if best in points:
            best_star(axes, *points[best][-1], theme)
        if best is not None:
            handles.append(best_handle(theme, f"best: trial {best}", line=True))
        legend(canvas, handles)

    return Figure(
        "learning-curves",
        f"{metric} of {words or 'every trial'} at each of its reports. Marks are where a trial ended.",
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


def pareto(record: Record) -> Section | None:
    """Return the section; none where there is one objective."""
    results = record.results
    if not results.others:
        return None
    metrics = [results.metric, *results.others]
    points = {row.number: row.final for row in results.rows
              if row.state == "COMPLETE" and all(name in row.final for name in metrics)}  # fmt: skip
    if not points:
        return Section("Pareto front", [Note("No complete trial has all objectives, so there is no front.", "missing")])
    best_first = sorted(results.front, key=lambda number: -points[number][results.metric])
    rows = [[number, *(points[number][name] for name in metrics)] for number in best_first]
    objectives = ", ".join(results.objectives)
    caption = f"Trials that no other one beats in every objective ({objectives}), at the last report."
    blocks: list[Block] = [Table("front", caption, [Column("trial"), *map(Column, metrics)], rows)]
    return Section("Pareto front", [*blocks, *(_front(record, points, other) for other in results.others)])


def _front(record: Record, points: Mapping[int, Mapping[str, float]], other: str) -> Figure:
    results, front = record.results, record.results.front
    modes = {text.rpartition(":")[0]: text.rpartition(":")[2] for text in results.objectives}
    alone = len(results.others) == 1

    def paint(canvas: Any, theme: Theme) -> None:
        axes, filled = canvas.subplots(), {"edgecolors": theme.paper, "linewidths": 0.5}
        rest = [number for number in points if number not in front and number != 0]
        groups = [
            (rest, "complete", {**filled, "color": theme.states["COMPLETE"], "marker": MARKERS["COMPLETE"], "s": 26}),
            (front, "on the front", {**filled, "color": theme.best, "marker": "D", "s": 42}),
            ([0] if 0 in points else [], results.baseline_name,
             {"facecolors": "none", "edgecolors": theme.ink, "linewidths": 1.5, "marker": "P", "s": 60, "zorder": 4}),
        ]  # fmt: skip
        handles = []
        for numbers, label, style in groups:
            if numbers:
                xs, ys = ([points[number][name] for number in numbers] for name in (results.metric, other))
                handles.append(axes.scatter(xs, ys, label=label, **{"zorder": 3, **style}))
        corners = sorted((points[number][results.metric], points[number][other], number) for number in front)
        if alone and len(corners) > 1:
            steps = "steps-pre" if modes[results.metric] == "max" else "steps-post"  # around what a trial beats
            axes.plot([x for x, _, _ in corners], [y for _, y, _ in corners], color=theme.best, drawstyle=steps,
                      linewidth=1)  # fmt: skip
        for place, (x, y, number) in enumerate(corners[:20]):
            axes.annotate(str(number), (x, y), (7, 6 if place % 2 else -12), textcoords="offset points", fontsize=7.5,
                          color=theme.muted)  # fmt: skip
        arrow = {"max": "more is better", "min": "less is better"}
        axes.set_xlabel(f"{results.metric} ({arrow[modes[results.metric]]})")
        axes.set_ylabel(f"{other} ({arrow[modes[other]]})")
        axes.margins(0.08)
        legend(canvas, handles)

    rows = [[number, values[results.metric], values[other], number in front] for number, values in points.items()]
    return Figure(
        "front" if alone else f"front-{results.others.index(other) + 1}",
        f"{other} against {results.metric} of complete trials, at their last report; numbers are those of trials.",
        f"Scatter of {other} against {results.metric}; {len(front)} of {len(points)} trials are on the front.",
        paint,
        Data(["trial", results.metric, other, "front"], rows),
        (7.6, 4.2),
    )
