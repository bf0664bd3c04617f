"""Timing of a search or a training, and its faults."""

from __future__ import annotations

import statistics
from typing import Any

from harness.formats import counted, duration, last_line
from harness.reporting.document import Block, Column, Data, Facts, Figure, Note, Section, Table
from harness.reporting.figures import legend, state_handles
from harness.reporting.record import Record, lanes
from harness.reporting.themes import Theme

LABELLED = 60
"""Spans up to which the timeline writes the numbers of trials."""
MEDIANS = {"Start of a trial": "overhead/start_s", "A report": "overhead/report_s", "A step": "time/step_s"}
"""Metrics of which the report shows the median over all reports."""


def timing(record: Record) -> Section:
    """Return the section on time."""
    facts = _facts(record)
    blocks: list[Block] = [Facts(facts)] if facts else []
    blocks.append(_timeline(record) if record.times.spans else
                  Note("When trials began and ended was not written down.", "missing"))  # fmt: skip
    return Section("Time", blocks)


def faults(record: Record) -> Section:
    """Return the section on failures, stops for health, and interruptions."""
    rows = [(trial.number, str(trial.state), trial.step, last_line(trial.error)) for trial in record.trials.values()
            if trial.error and trial.state in ("FAIL", "PRUNED", "INTERRUPTED")]  # fmt: skip
    unsaved = sum(int(metrics.get("overhead/unsaved", 0)) for reports in record.reports.values()
                  for metrics in reports.values())  # fmt: skip
    columns = [Column("trial"), Column("state"), Column("at step"), Column("reason")]
    caption = (
        "Trials that failed, were stopped for their health, or were interrupted, with the last line of the reason."
    )
    blocks: list[Block] = [Table("faults", caption, columns, rows) if rows else Note("No trial failed.")]
    if len(record.times.sessions) > 1:
        blocks.append(Note(f"It was interrupted and resumed {counted(len(record.times.sessions) - 1, 'time')}."))
    if unsaved:
        blocks.append(Note(f"{unsaved} checkpoints could not be written.", "caution"))
    return Section("Faults", blocks)


def _facts(record: Record) -> list[tuple[str, str]]:
    spans, facts = record.times.spans, list[tuple[str, str]]()
    if spans:
        facts.append(("Trials at once, at most", str(max(lanes(spans)) + 1)))
        facts.append(("A trial, median", f"{statistics.median(span.end_s - span.start_s for span in spans):.1f} s"))
    for title, name in MEDIANS.items():
        values = [metrics[name] for reports in record.reports.values() for metrics in reports.values()
                  if name in metrics]  # fmt: skip
        if values:
            facts.append((f"{title}, median", f"{1000 * statistics.median(values):.3g} ms"))
    return facts


def _timeline(record: Record) -> Figure:
    spans, sessions = record.times.spans, record.times.sessions
    rows = lanes(spans)
    end, most = max(span.end_s for span in spans), max(rows) + 1
    unit, length = next((unit, length) for unit, length in (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
                        if end > 3 * length or length == 1.0)  # fmt: skip

    def paint(canvas: Any, theme: Theme) -> None:
        axes, few = canvas.subplots(), len(spans) <= LABELLED
        colours = [theme.states.get(span.state, theme.states["INTERRUPTED"]) for span in spans]
        starts = [span.start_s / length for span in spans]
        widths = [(span.end_s - span.start_s) / length for span in spans]
        axes.barh(rows, widths, 0.8, starts, color=colours, edgecolor=theme.paper, linewidth=0.6 if few else 0.1)
        for span, row, start, width in zip(spans, rows, starts, widths, strict=True):
            if few and width > 0.02 * end / length:
                axes.text(start + width / 2, row, str(span.trial), ha="center", va="center", fontsize=7.5,
                          color=theme.paper)  # fmt: skip
        for begun in sessions[1:]:
            axes.axvline(begun / length, color=theme.ink, linestyle=":", linewidth=1)
        axes.set_xlim(0, 1.01 * end / length)
        marked = range(most) if most <= 12 else (0, most - 1)
        axes.set_yticks(marked, [str(row + 1) for row in marked])
        axes.invert_yaxis()
        axes.set_xlabel(f"{unit} since the beginning")
        axes.set_ylabel("trials at once")
        axes.grid(axis="y", visible=False)
        legend(canvas, state_handles([span.state for span in spans], theme, "bar"))

    several = (
        " Dotted lines: a later session began; the time between sessions is left out." if len(sessions) > 1 else ""
    )
    data = [(span.trial, row + 1, span.start_s, span.end_s, span.state) for span, row in zip(spans, rows, strict=True)]
    return Figure(
        "timeline",
        f"When each trial was trained, one line for each that ran at once.{several}",
        f"Timeline of {len(spans)} spans over {duration(end)}, up to {most} at once.",
        paint,
        Data(["trial", "lane", "start_s", "end_s", "state"], data),
        (7.6, min(7.0, 1.5 + 0.42 * most)),
    )
