"""Pareto front of a search with several objectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.reporting.document import Block, Column, Data, Figure, Note, Section, Table
from harness.reporting.figures import legend
from harness.reporting.record import Record
from harness.reporting.themes import MARKERS, Theme


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
    caption = (
        f"Trials that no other one beats in every objective ({', '.join(results.objectives)}), at the last report."
    )
    blocks: list[Block] = [Table("front", caption, [Column("trial"), *map(Column, metrics)], rows)]
    return Section("Pareto front", [*blocks, *(_figure(record, points, other) for other in results.others)])


def _figure(record: Record, points: Mapping[int, Mapping[str, float]], other: str) -> Figure:
    """Return a figure of another objective over the primary one, of complete trials by number."""
    results, front = record.results, record.results.front
    modes = {text.rpartition(":")[0]: text.rpartition(":")[2] for text in results.objectives}
    alone = len(results.others) == 1

    def paint(canvas: Any, theme: Theme) -> None:
        axes, filled = canvas.subplots(), {"edgecolors": theme.paper, "linewidths": 0.5}
        rest = [number for number in points if number not in front and number != 0]
        groups = [
            (rest, "complete", {**filled, "color": theme.states["COMPLETE"], "marker": MARKERS["COMPLETE"], "s": 26}),
            (front, "on the front", {**filled, "color": theme.best, "marker": "D", "s": 42}),
            ([0] if 0 in points else [], "published baseline",
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
