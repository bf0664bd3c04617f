"""The Pareto front of a search with several objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.reporting.document import Block, Column, Data, Figure, Note, Section, Table
from harness.reporting.figures import legend
from harness.reporting.themes import MARKERS, Theme

if TYPE_CHECKING:
    from harness.reporting.record import Record


def front(record: Record) -> Section | None:
    """Return the section; none where there is one objective."""
    results = record.results
    if not results.others:
        return None
    metrics = [results.metric, *results.others]
    whole = [row for row in results.rows if row.state == "COMPLETE" and all(name in row.final for name in metrics)]
    if not whole:
        return Section("Pareto front", [Note("No complete trial has all objectives, so there is no front.", "missing")])
    numbers = set(results.front)
    best = sorted((row for row in whole if row.number in numbers), key=lambda row: row.final[results.metric])
    rows = [[row.number, *(row.final[name] for name in metrics)] for row in reversed(best)]
    caption = (
        f"Trials that no other one beats in every objective ({', '.join(results.objectives)}), at the last report."
    )
    blocks: list[Block] = [Table("front", caption, [Column("trial"), *(Column(name) for name in metrics)], rows)]
    points = {row.number: row.final for row in whole}
    return Section("Pareto front", [*blocks, *(_figure(record, points, other) for other in results.others)])


def _figure(record: Record, points: dict[int, Any], other: str) -> Figure:
    results, numbers = record.results, record.results.front
    modes = {text.rpartition(":")[0]: text.rpartition(":")[2] for text in results.objectives}
    on = sorted((points[number][results.metric], points[number][other], number) for number in numbers)
    two = len(results.objectives) == 2
    index = results.others.index(other)

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        rest = [values for number, values in points.items() if number not in numbers and number != 0]
        groups = [(rest, theme.states["COMPLETE"], MARKERS["COMPLETE"], 26, "complete"),
                  ([points[number] for number in numbers], theme.best, "D", 42, "on the front"),
                  ([points[0]] if 0 in points else [], theme.ink, "P", 60, "published baseline")]  # fmt: skip
        handles = []
        for values, color, marker, size, label in groups:
            if values:
                xs, ys = [one[results.metric] for one in values], [one[other] for one in values]
                hollow = {"facecolors": "none", "edgecolors": color, "linewidths": 1.5} if marker == "P" else {
                    "color": color, "edgecolors": theme.paper, "linewidths": 0.5}  # fmt: skip
                handles.append(axes.scatter(xs, ys, marker=marker, s=size, zorder=3 + (marker == "P"), label=label,
                                            **hollow))  # fmt: skip
        if two and len(on) > 1:
            steps = "steps-pre" if modes[results.metric] == "max" else "steps-post"  # around what a trial beats
            axes.plot([x for x, _, _ in on], [y for _, y, _ in on], color=theme.best, drawstyle=steps, linewidth=1)
        for place, (x, y, number) in enumerate(on[:20]):
            axes.annotate(str(number), (x, y), (7, 6 if place % 2 else -12), textcoords="offset points", fontsize=7.5,
                          color=theme.muted)  # fmt: skip
        arrow = {"max": "more is better", "min": "less is better"}
        axes.set_xlabel(f"{results.metric} ({arrow[modes[results.metric]]})")
        axes.set_ylabel(f"{other} ({arrow[modes[other]]})")
        axes.margins(0.08)
        legend(canvas, handles)

    rows = [(number, values[results.metric], values[other], number in numbers) for number, values in points.items()]
    return Figure(
        f"front-{index + 1}" if not two else "front",
        f"{other} against {results.metric} of complete trials, at their last report; numbers are those of trials.",
        f"Scatter of {other} against {results.metric}; {len(numbers)} of {len(points)} trials are on the front.",
        paint,
        Data(["trial", results.metric, other, "front"], rows),
        (7.6, 4.2),
    )
