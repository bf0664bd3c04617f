"""What a run came to, as a terminal shows it: tables, what they amount to, and what may be typed next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.ablation.doubts import doubts
from harness.ablation.noise import caution, needed_table, noise_of
from harness.ablation.results import Ablation
from harness.ablation.run import lines as ablation_lines
from harness.ablation.run import runs_table, verdicts
from harness.ablation.run import to_table as ablation_table
from harness.console import Console, program
from harness.formats import counted
from harness.ledger import LEDGER, read_ledger
from harness.reporting.next_steps import next_commands, storage_option
from harness.reporting.results import FILES, Results, best_values, summary, to_table
from harness.tables import Column, Table
from trainers.errors import UsageError


def show_ablation(ablation: Ablation, storage: Path, console: Console) -> None:
    """Write the table of an ablation or a confirmation, what it amounts to, and what may be typed next."""
    folder = storage.resolve() / ablation.name
    show_table(ablation, folder, console)
    console.say(f"next: {next_commands(folder, ablation.tracking_uri, program())}")
    console.result({**ablation.to_dict(), "doubts": doubts(ablation), "folder": str(folder)})


def show_table(ablation: Ablation, folder: Path, console: Console) -> None:
    """Write the table of an ablation or a confirmation, and what it amounts to."""
    _show_table(ablation_table(ablation), folder, console)
    for line in (*ablation_lines(ablation), *doubts(ablation)):
        console.say(line)


def show_scores(ablation: Ablation, out: Path | None, console: Console) -> None:
    """Write the comparison of scores that were trained elsewhere, and its report into a folder where one is given.

    Raises:
        UsageError: the folder holds something else.
        OSError: it cannot be written.
    """
    if out is not None and out.exists() and not (out / "report.html").exists():
        raise UsageError(f"--out must be a new folder or hold a report, {out} does not: name another, or remove it")
    console.table(ablation_table(ablation))
    for line in (*verdicts(ablation), *doubts(ablation)):
        console.say(line)
    data = ablation.to_dict()
    if out is not None:
        from harness.reporting.ablation.report import scores_document
        from harness.reporting.reports import write_report

        page = write_report(scores_document(ablation), out, "Written by s4-harness.")[0]
        console.say(f"report: {page}")
        data["report"] = str(page)
    console.result(data)


def show_runs(ablation: Ablation, storage: Path, console: Console, cost: Table, numbers: Mapping[str, Any]) -> None:
    """Write every run of an ablation, whether it is done, what its variant sets, and the cost of what is left.

    Args:
        cost: for people.
        numbers: the same as JSON-able values.
    """
    request, steps = ablation.request, ablation.request.info.horizon
    ledger = storage.resolve() / ablation.name / LEDGER
    trials = read_ledger(ledger).trials
    console.table(runs_table(request, trials))
    console.table(cost)
    missing = sum(number not in trials or not trials[number].state.over for number in range(len(request.runs)))
    trainings = f"{counted(len(request.runs), 'training')} of {counted(steps, 'step')}"
    console.say(f"{ablation.name}: {trainings}, {missing} of them to train")
    runs = [
        {"run": number, "variant": run.variant, "seed": run.seed, "difference": request.difference(run.variant),
         "state": str(trials[number].state) if number in trials else "to train"}
        for number, run in enumerate(request.runs)
    ]  # fmt: skip
    data = {"name": ablation.name, "plan": request.plan, "runs": runs, "missing": missing, "steps": steps}
    console.result({**data, "cost": numbers})


def show_noise(ablation: Ablation, storage: Path, console: Console) -> None:
    """Write the spread of each metric over seeds, and how many seeds it takes to see a difference."""
    spreads = [noise_of(ablation, metric) for metric in dict.fromkeys((ablation.metric, ablation.request.watched))]
    for noise in spreads:
        console.say(str(noise))
        if noise is spreads[0]:
            console.table(needed_table(noise))
            console.say(caution(noise))
    for line in doubts(ablation):
        console.say(line)
    folder, metrics = storage.resolve() / ablation.name, {noise.metric: noise.to_dict() for noise in spreads}
    base = ablation.request.base
    console.result({
        "name": ablation.name, "preset": base, "folder": str(folder), "metrics": metrics, "doubts": doubts(ablation),
    })  # fmt: skip


def show(results: Results, folder: Path, console: Console) -> None:
    """Write the table of a search, what the best trial set where there is no room for it, and a summary."""
    left_out = _show_table(to_table(results), folder, console) if results.kind == "search" else []
    if any(column.name in results.paths for column in left_out) and results.best is not None:
        console.say(f"values of trial {results.best.number}, the best:")
        for line in best_values(results):
            console.say(f"  {line}")
    for line in summary(results):
        console.say(line)


def _show_table(table: Table, folder: Path, console: Console) -> list[Column]:
    """Write a table of a run, and how to see the columns that there is no room for; return these."""
    left_out = console.table(table)
    if table.listed is not None and len(table.rows) > table.listed:
        console.say(f"{len(table.rows) - table.listed} more trials: {folder / FILES[1]}")
    if left_out:
        console.say(f"all columns: {program()} report {folder.name}{storage_option(folder)} | less -S")
    return left_out
