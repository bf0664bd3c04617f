"""Result of a search or a training in a sentence, its facts, leaderboard, timing and faults."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from harness.formats import counted, device_hours, duration, last_line
from harness.ledger import Times
from harness.reporting.document import Block, Column, Data, Facts, Figure, Note, Section, Table
from harness.reporting.figures import WORDS, legend, state_handles
from harness.reporting.next_steps import beginning, confirm_command
from harness.reporting.record import Record, lanes
from harness.reporting.results import to_table
from harness.reporting.themes import Theme
from trainers.overrides import as_setting

LABELLED = 60
"""Spans up to which the timeline writes the numbers of trials."""
MEDIANS = {"Start of a trial": "overhead/start_s", "A report": "overhead/report_s", "A step": "time/step_s"}
"""Metrics of which the report shows the median over trials of the median over reports, as the terminal does."""


def overview(record: Record) -> Section:
    """Return the facts, and what must be kept in mind with them."""
    blocks: list[Block] = [Note(text, "missing") for text in record.missing]
    if record.results.kind == "search" and record.results.best is not None:
        blocks.append(Note(
            "These are numbers of one seed each, and the best of many is better than it is. "
            f"`{confirm_command(record)}` trains the best and the {record.results.baseline_name} again with several "
            "seeds and tells whether the difference is more than noise.", "caution"))  # fmt: skip
    if record.unfinished:
        blocks.append(Note("Not all trials are over: everything here is as far as it was when this was written."))
    what = {"search": "search", "train": "training"}[record.results.kind]
    return Section("Overview", [
        *blocks, *beginning(record.folder, record.info, what), Facts(facts(record)),
        *by_hand(record.info.settings if record.info else {}),
    ])  # fmt: skip


def by_hand(settings: Mapping[str, Any]) -> list[Table]:
    """Return the table of what was set by hand, a setting a line, as `--set` takes it; none where nothing was."""
    rows = [as_setting(path, value).split("=", 1) for path, value in settings.items()]
    return [Table("settings", "Set by hand.", [Column("setting"), Column("value")], rows)] if rows else []


def facts(record: Record) -> list[tuple[str, str]]:
    """Return what was done, as names and values; what is not known is left out."""
    results, info = record.results, record.info
    rows = [("Preset", results.preset), *(_search_facts(record) if results.kind == "search" else ())]
    rows.append(("Objective" if len(results.objectives) < 2 else "Objectives", _objectives(record)))
    rows.append(("Horizon", f"{results.horizon} steps" + (f", a report every {info.report_every}" if info else "")))
    return [*rows, *_run_facts(record)]


def _search_facts(record: Record) -> list[tuple[str, str]]:
    results, plan = record.results, record.options
    states = ", ".join(f"{count} {WORDS[state]}" for state, count in results.counts.items())
    trials, planned = str(len(results.rows)), plan.get("trials")
    if planned and planned != len(results.rows):
        trials += f" of {planned}"
    rows = [("Search space", f"{results.space}, {len(results.paths)} parameters")]
    rows.append(("Trials", f"{trials}: {states}" if states else trials))
    if plan:
        scheduler = plan["scheduler"]
        keeps = f", keeps 1 in {plan['reduction_factor']}" if scheduler in ("asha", "hyperband") else ""
        rows += [("Sampler", f"{plan['sampler']}, seed {plan['seed']}"), ("Scheduler", f"{scheduler}{keeps}")]
    if plan.get("constraint"):
        rows.append(("Constraints", ", ".join(plan["constraint"])))
    if plan.get("warm_start"):
        rows.append(("Learnt from", str(plan["warm_start"])))
    return rows


def _run_facts(record: Record) -> list[tuple[str, str]]:
    times, info = record.times, record.info
    rows = [("Wall clock", duration(record.results.elapsed_s))]
    if record.device_s is not None:
        rows.append(("Devices held", device_hours(record.device_s, times.card_s)))
    if info is None:
        return [*rows, *origin(times)]
    return [*rows, *origin(times, info.revision, info.config.get("data", {}).get("name", "own"), info.data_digest)]


def origin(times: Times, revision: str = "", data: str = "", digest: str = "") -> list[tuple[str, str]]:
    """Return when a run began, and the code and the data that it was done with, as far as they are known."""
    rows = []
    if times.began_unix is not None:
        rows.append(("Begun", datetime.fromtimestamp(times.began_unix, UTC).strftime("%Y-%m-%d %H:%M UTC")))
    if len(times.sessions) > 1:
        rows.append(("Sessions", str(len(times.sessions))))
    rows += [(name.capitalize(), words) for name, words in times.machine.items()]
    if revision:
        rows.append(("Revision", f"`{revision[:12]}`"))
    if digest:
        rows.append(("Data", f"{data}, splits `{digest}`"))
    return rows


def leaderboard(record: Record) -> Section:
    """Return the table of all trials, best first."""
    why = "Trials that reached the horizon come first, for an early value says little about a late one."
    return Section("Leaderboard", [replace(to_table(record.results), caption=f"All trials, best first. {why}")])


def _objectives(record: Record) -> str:
    words = {"max": "maximised", "min": "minimised"}
    pairs = [text.rpartition(":") for text in record.results.objectives or [f"{record.results.metric}:max"]]
    return ", ".join(f"{metric}, {words[mode]}" for metric, _, mode in pairs)


def timing(record: Record) -> Section:
    """Return the section on time."""
    facts = _medians(record)
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
    trials = "Trials that failed, were stopped for their health, or were interrupted"
    caption = f"{trials}, with the last line of the reason."
    blocks: list[Block] = [Table("faults", caption, columns, rows) if rows else Note("No trial failed.")]
    if len(record.times.sessions) > 1:
        blocks.append(Note(f"It was interrupted and resumed {counted(len(record.times.sessions) - 1, 'time')}."))
    if unsaved:
        blocks.append(Note(f"{unsaved} checkpoints could not be written.", "caution"))
    return Section("Faults", blocks)


def _medians(record: Record) -> list[tuple[str, str]]:
    spans, facts = record.times.spans, list[tuple[str, str]]()
    if spans:
        facts.append(("Trials at once, at most", str(max(lanes(spans)) + 1)))
        facts.append(("A trial, median", duration(statistics.median(span.end_s - span.start_s for span in spans))))
    for title, name in MEDIANS.items():
        by_trial = [[metrics[name] for metrics in reports.values() if name in metrics]
                    for reports in record.reports.values()]  # fmt: skip
        medians = [statistics.median(values) for values in by_trial if values]
        if medians:
            facts.append((f"{title}, median", duration(statistics.median(medians))))
    return facts


def _timeline(record: Record) -> Figure:
    spans, sessions = record.times.spans, record.times.sessions
    rows = lanes(spans)
    end, most = max(span.end_s for span in spans), max(rows) + 1
    unit, length = next((unit, length) for unit, length in (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
                        if end > 3 * length or length == 1.0)  # fmt: skip

    def paint(canvas: Any, theme: Theme) -> None:
        axes, few = canvas.subplots(), len(spans) <= LABELLED
        for lane in range(most):  # each as one collection: thousands of single bars take long
            mine = [span for span, row in zip(spans, rows, strict=True) if row == lane]
            bars = [(span.start_s / length, (span.end_s - span.start_s) / length) for span in mine]
            colours = [theme.states.get(span.state, theme.states["INTERRUPTED"]) for span in mine]
            axes.broken_barh(bars, (lane - 0.4, 0.8), facecolors=colours, edgecolors=theme.paper,
                             linewidths=0.6 if few else 0.1)  # fmt: skip
            for span, (start, width) in zip(mine, bars, strict=True):
                if few and width > 0.02 * end / length:
                    axes.text(start + width / 2, lane, str(span.trial), ha="center", va="center", fontsize=7.5,
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

    dotted = " Dotted lines: a later session began; the time between sessions is left out."
    several = dotted if len(sessions) > 1 else ""
    data = [(span.trial, row + 1, span.start_s, span.end_s, span.state) for span, row in zip(spans, rows, strict=True)]
    return Figure(
        "timeline",
        f"When each trial was trained, one line for each that ran at once.{several}",
        f"Timeline of {len(spans)} spans over {duration(end)}, up to {most} at once.",
        paint,
        Data(["trial", "lane", "start_s", "end_s", "state"], data),
        (7.6, min(7.0, 1.5 + 0.42 * most)),
    )
