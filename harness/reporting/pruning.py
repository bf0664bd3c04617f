"""Trials that the scheduler stopped, and what early values tell of the final order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.planning.arithmetic import Shape, decisions
from harness.reporting.document import Block, Cell, Column, Data, Figure, Note, Section, Table
from harness.reporting.figures import legend
from harness.reporting.record import Record
from harness.reporting.themes import Theme
from harness.statistics.ranks import FEWEST, Course, RungOrder, rung_orders
from harness.tuning.config import grace


def pruning(record: Record) -> Section:
    """Return the section."""
    title, steps, orders = "What was stopped, and where", rung_steps(record), _orders(record)
    if not any(trial.values for trial in record.trials.values()):
        return Section(title, [Note("Without reports nothing can be said of rungs.", "missing")])
    blocks: list[Block] = [_table(record, steps, orders) if steps else Note("No trial was stopped early.")]
    blocks.append(Note(safety(record, steps, orders)))
    if any(order.kendall is not None for order in orders):
        blocks.append(_figure(record, orders, steps))
    return Section(title, blocks)


def rung_steps(record: Record) -> list[int]:
    """Return the steps at which the scheduler decides: ASHA's, and those at which trials were stopped."""
    plan, steps = record.options, {trial.step for trial in record.trials.values() if trial.state == "PRUNED"}
    if plan.get("scheduler") == "asha" and record.info:
        horizon, every = record.results.horizon, record.info.report_every
        first = grace(horizon, every, plan.get("grace_steps"))
        steps |= {*decisions(Shape(1, 1, 1, horizon, every, "asha", first, plan["reduction_factor"]))}
    return sorted(steps)


def safety(record: Record, steps: Sequence[int], orders: Sequence[RungOrder]) -> str:
    """Return whether the first of these rungs is late enough, in words, as far as it can be told."""
    most = max((order.n for order in orders), default=0)
    if most < FEWEST:
        return f"Early values tell nothing of the final order yet: that takes {FEWEST} complete trials, got {most}."
    if not steps:
        return "The curve below tells from which step on a rung would have kept the order."
    known = [order for order in orders if order.step in steps and order.kendall is not None]
    sentences = []
    if not known or known[0].step != steps[0]:
        sentences.append(f"The first rung, at step {steps[0]}, tells nothing of the final order: its values are equal.")
    if known:
        first = known[0]
        sentences += [
            f"Over the {first.n} trials that reached the horizon, the order at step {first.step} and the final one "
            f"have Kendall's tau {first.kendall:+.2f}.",
            f"The rung would have let {first.kept} of the final best {first.top} pass.",
        ]
    if any(trial.state == "PRUNED" for trial in record.trials.values()):
        sentences += [
            "Trials that were stopped have no final value, so this is the order among those that did well early.",
            "A search with `--scheduler none` would tell more.",
        ]
    return " ".join(sentences)


def _orders(record: Record) -> list[RungOrder]:
    """Return the order at each report before the horizon that trials have in common."""
    horizon = record.results.horizon
    courses = []
    for trial in record.trials.values():
        values = {step: value for step, value in trial.values if math.isfinite(value)}
        courses.append(Course(values, values.get(horizon) if trial.state == "COMPLETE" else None))
    steps = sorted({step for course in courses if course.final is not None for step in course.values})
    eta = record.options.get("reduction_factor") or 3
    return rung_orders(courses, [step for step in steps if step < horizon], eta, record.maximise)


def _table(record: Record, steps: Sequence[int], orders: Sequence[RungOrder]) -> Table:
    trials, by_step = list(record.trials.values()), {order.step: order for order in orders}
    rows: list[list[Cell]] = []
    for step in steps:
        arrived = [trial for trial in trials if trial.step >= step]
        stopped = [trial for trial in arrived if trial.state == "PRUNED" and trial.step == step]
        sick = [trial for trial in stopped if trial.error]
        on = [trial for trial in arrived if trial.step > step]
        values = [dict(trial.values).get(step) for trial in on if not record.results.baseline or trial.number != 0]
        worst = (min if record.maximise else max)((value for value in values if value is not None), default=None)
        row: list[Cell] = [step, len(arrived), len(stopped), len(sick), len(on), worst]
        order = by_step.get(step)
        kept = None if order is None or order.kept is None else f"{order.kept} of {order.top}"
        rows.append([*row, *((order.kendall, order.spearman, order.n) if order else (None, None, 0)), kept])
    columns = [Column("step"), Column("arrived"), Column("stopped"), Column("of these sick", name="sick"),
               Column("went on"), Column("worst that went on", form=".4f"), Column("tau", form="+.2f"),
               Column("rho", form="+.2f"), Column("trials", name="with_final_value"),
               Column("final best kept")]  # fmt: skip
    caption = (
        f"Trials by the steps at which the scheduler decides. The worst that went on: {record.results.metric} at the "
        f"rung, the {record.results.baseline_name} aside, which is never stopped. Tau (Kendall) and rho (Spearman) "
        "compare the order at the rung with the final one, over the trials that have both."
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
    )
