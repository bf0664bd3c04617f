"""The start of a session, from the command to the first report: a waterfall for a terminal, a section of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.patches import Patch

from harness.formats import duration
from harness.ledger import Times
from harness.reporting.document import Block, Cell, Column, Data, Figure, Section, Table
from harness.reporting.figures import legend
from harness.reporting.themes import Theme
from harness.start import Stage, Start

BAR = 30
"""Characters of a terminal's bar of the whole start."""


class Group(NamedTuple):
    """Stages that are shown together."""

    title: str
    stages: list[Stage]


def groups(start: Start) -> list[Group]:
    """Return the stages of the gang that was first, those beside them, and those of the gang that was last."""
    order = start.by_report
    first = f"driver and gang {order[0]}, the first" if len(order) > 1 else ""
    found = [Group(first, start.stages()), Group("meanwhile", start.meanwhile())]
    if len(order) > 1:
        found.append(Group(f"gang {order[-1]}, the last", start.stages_of(order[-1])))
    return [group for group in found if group.stages]


def waterfall(start: Start, mark: str) -> Table:
    """Return the stages of a start with a bar each, of `mark`; no wider than 80 characters."""
    shown, rows, gaps = groups(start), list[Sequence[Cell]](), set[int]()
    whole = max((stage.ended_s for group in shown for stage in group.stages), default=0.0)
    for group in shown:
        gaps.add(len(rows))
        if group.title:
            rows.append([f"{group.title}:", "", "", ""])
        for stage in group.stages:
            rows.append([stage.words, stage.began_s, stage.took_s, _bar(stage, whole, mark)])
    columns = [Column("stage"), Column("from s", form=".1f"), Column("took s", form=".1f"), Column("", name="bar")]
    caption = f"From the command to the first report in {start.took_s:.1f} s."
    return Table("start", caption, columns, rows, gaps=frozenset(gaps - {0}))


def _bar(stage: Stage, whole: float, mark: str) -> str:
    """Return the place of a stage in the whole, at least one character."""
    begin = round(BAR * stage.began_s / whole) if whole else 0
    end = round(BAR * stage.ended_s / whole) if whole else 0
    begin = min(begin, BAR - 1)
    return " " * begin + mark * max(1, end - begin)


def start_section(times: Times) -> Section | None:
    """Return the section on how the last session started, and how long the start of each took; none: nobody noted it.

    Sessions that had no report have no stages.
    """
    starts = {session: start for session, start in times.starts.items() if start.by_report}
    if not starts:
        return None
    blocks: list[Block] = [_figure(starts[max(starts)])]
    if len(starts) > 1:
        rows: list[Sequence[Cell]] = []
        for session, start in starts.items():
            longest = longest_of(start)
            rows.append([session + 1, start.took_s, longest.words, longest.took_s])
        columns = [Column("session"), Column("to the first report, s", form=".1f"), Column("longest stage"),
                   Column("of s", form=".1f")]  # fmt: skip
        blocks.append(Table("starts", "The start of each session.", columns, rows))
    return Section("Start", blocks)


def longest_of(start: Start) -> Stage:
    """Return the stage on the way to the first report that took longest."""
    return max(start.stages(), key=lambda stage: stage.took_s)


def _figure(start: Start) -> Figure:
    shown = groups(start)
    stages = [(group.title, stage) for group in shown for stage in group.stages]
    whole, longest = max(stage.ended_s for _, stage in stages), longest_of(start)

    def paint(canvas: Any, theme: Theme) -> None:
        axes, row, ticks, handles = canvas.subplots(), 0.0, list[float](), list[Any]()
        for group, colour in zip(shown, (theme.states["COMPLETE"], theme.muted, theme.series[1]), strict=False):
            handles += [Patch(color=colour, label=group.title)] if group.title else []
            for stage in group.stages:
                axes.barh(row, stage.took_s, 0.7, stage.began_s, color=colour)
                right = stage.ended_s > 0.9 * whole  # where there is no room for a number behind the bar
                axes.text(stage.began_s if right else stage.ended_s, row, f" {stage.took_s:.1f} ", va="center",
                          ha="right" if right else "left", fontsize=7.5, color=theme.muted)  # fmt: skip
                ticks.append(row)
                row += 1.0
            row += 0.5
        axes.set_yticks(ticks, [stage.words for _, stage in stages])
        axes.set_ylim(ticks[-1] + 0.7, -0.7)
        axes.set_xlim(0, 1.01 * whole)
        axes.set_xlabel("seconds since the command")
        axes.grid(axis="y", visible=False)
        legend(canvas, handles)

    rows = [(title, stage.name, stage.began_s, stage.took_s) for title, stage in stages]
    return Figure(
        "start",
        f"What passed between the command and the first report, which came after {start.took_s:.1f} s.",
        f"Waterfall of {len(stages)} stages over {duration(whole)}; the longest is {longest.words}, "
        f"{duration(longest.took_s)}.",
        paint,
        Data(["group", "stage", "began_s", "took_s"], rows),
        (7.6, 1.1 + 0.2 * len(stages)),
    )
