"""What the scheduler stopped and where, and whether early values tell the final order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.planning.arithmetic import Shape, decisions
from harness.reporting.document import Block, Column, Data, Figure, Note, Section, Table
from harness.reporting.figures import legend
from harness.reporting.themes import Theme
from harness.statistics.ranks import FEWEST, Course, RungOrder, rung_orders
from harness.tuning.config import grace

if TYPE_CHECKING:
    from harness.reporting.record import Record
    from harness.trials import Trial


def stops(record: Record) -> Section:
    """Return the section."""
    steps = rung_steps(record)
    orders = _orders(record)
    blocks: list[Block] = []
    if not any(trial.values for trial in record.trials.values()):
        blocks.append(Note("Without reports nothing can be said of rungs.", "missing"))
        return Section("What was stopped, and where", blocks)
    if steps:
        blocks.append(_table(record, steps))
    else:
        blocks.append(Note("No trial was stopped early."))
    blocks.append(Note(safety(record, orders), "remark"))
    if any(order.kendall is not None for order in orders):
        blocks.append(_figure(record, orders, steps))
    return Section("What was stopped, and where", blocks)


def rung_steps(record: Record) -> list[int]:
    """Return the steps at which the scheduler decides: ASHA's, and those at which trials were stopped."""
    plan, found = record.options, {trial.step for trial in record.trials.values() if trial.state == "PRUNED"}
    if plan.get("scheduler") == "asha" and record.info:
        horizon = record.results.horizon
        first = grace(horizon, record.info.report_every, plan.get("grace_steps"))
        shape = Shape(1, 1, 1, horizon, record.info.report_every, "asha", first, plan["reduction_factor"])
        found |= set(decisions(shape))
    return sorted(found)


def safety(record: Record, orders: Sequence[RungOrder]) -> str:
    """Return whether the first rung is late enough, in words, as far as it can be told."""
    steps, most = rung_steps(record), max((order.n for order in orders), default=0)
    if most < FEWEST:
        return f"Early values tell nothing of the final order yet: that takes {FEWEST} complete trials, got {most}."
    if not steps:
        return "The curve below tells from which step on a rung would have kept the order."
    at = {order.step: order for order in orders if order.step in steps}
    known = [order for order in at.values() if order.kendall is not None]
    said = []
    if steps[0] not in at or at[steps[0]].kendall is None:
        said.append(f"The first rung, at step {steps[0]}, tells nothing of the final order: its values are equal.")
    if known:
        first = known[0]
        said += [
            f"Over the {first.n} trials that reached the horizon, the order at step {first.step} and the final one "
            f"have Kendall's tau {first.kendall:+.2f}.",
            f"The rung would have let {first.kept} of the final best {first.top} pass.",
        ]
    if any(trial.state == "PRUNED" for trial in record.trials.values()):
        said += [
            "Trials that were stopped have no final value, so this is the order among those that did well early.",
            "A search with `--scheduler none` would tell more.",
        ]
    return " ".join(said)


def _orders(record: Record) -> list[RungOrder]:
    """Return the order at each report before the horizon that trials have in common."""
    horizon = record.results.horizon
    courses = [_course(trial, horizon) for trial in record.trials.values()]
    steps = sorted({step for course in courses if course.final is not None for step in course.values})
    eta = record.options.get("reduction_factor") or 3
    return rung_orders(courses, [step for step in steps if step < horizon], eta, record.maximise)


def _course(trial: Trial, horizon: int) -> Course:
    values = {step: value for step, value in trial.values if math.isfinite(value)}
    return Course(values, values.get(horizon) if trial.state == "COMPLETE" else None)


def _table(record: Record, steps: Sequence[int]) -> Table:
    trials = list(record.trials.values())
    order = {found.step: found for found in _orders(record)}
    rows = []
    for step in steps:
        arrived = [trial for trial in trials if trial.step >= step]
        stopped = [trial for trial in arrived if trial.state == "PRUNED" and trial.step == step]
        sick = [trial for trial in stopped if trial.error]
        on = [trial for trial in arrived if trial.step > step]
        judged = [trial for trial in on if record.results.baseline is None or trial.number != 0]
        values = [dict(trial.values)[step] for trial in judged if step in dict(trial.values)]
        worst = (min if record.maximise else max)(values) if values else None
        found = order.get(step)
        rows.append([step, len(arrived), len(stopped), len(sick), len(on), worst,
                     found.kendall if found else None, found.spearman if found else None, found.n if found else 0,
                     f"{found.kept} of {found.top}" if found and found.kept is not None else None])  # fmt: skip
    columns = [Column("step"), Column("arrived"), Column("stopped"), Column("of these sick", name="sick"),
               Column("went on"), Column("worst that went on", form=".4f"), Column("tau", form="+.2f"),
               Column("rho", form="+.2f"), Column("trials", name="with_final_value"),
               Column("final best kept")]  # fmt: skip
    caption = (
        f"Trials by the steps at which the scheduler decides. The worst that went on: {record.results.metric} at the "
        "rung, the published baseline aside, which is never stopped. Tau (Kendall) and rho (Spearman) compare "
        "the order at the rung with the final one, over the trials that have both."
    )
    return Table("rungs", caption, columns, rows, shown=30)


def _figure(record: Record, orders: Sequence[RungOrder], steps: Sequence[int]) -> Figure:
    known = [(order.step, order.kendall) for order in orders if order.kendall is not None]
    most = max(order.n for order in orders)

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        axes.axhline(0, color=theme.muted, linewidth=0.8)
        axes.plot(*zip(*known, strict=True), color=theme.series[0], marker="o", markersize=4,
                  label=f"Kendall's tau ({most} trials)")  # fmt: skip
        for index, step in enumerate(steps):
            axes.axvline(step, color=theme.ink, linestyle=":", linewidth=1,
                         label="the scheduler decides here" if index == 0 else None)  # fmt: skip
        axes.set_ylim(-1.05, 1.05)
        axes.set_xlim(0, record.results.horizon)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("agreement with final order")
        legend(canvas, axes.get_legend_handles_labels()[0])

    rows = [(order.step, order.n, order.kendall, order.spearman, order.kept, order.top) for order in orders]
    return Figure(
        "rank-correlation",
        "How far the order of trials at each report is their final order: 1 the same, 0 unrelated, -1 reversed. Of few "
        "trials it is rough, and trials that were stopped are not in it.",
        f"Curve of Kendall's tau over optimizer steps; it ends at {known[-1][1]:+.2f}.",
        paint,
        Data(["step", "trials", "kendall", "spearman", "kept", "top"], rows),
        (7.6, 3.2),
    )  # fmt: skip
