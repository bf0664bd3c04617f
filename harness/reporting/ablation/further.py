"""What went wrong in an ablation, and commands that lead further."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from harness.reporting.ablation.overview import STATES, unfinished
from harness.reporting.ablation.words import listed
from harness.reporting.document import Block, Column, Commands, Note, Section, Table
from harness.reporting.overview import storage_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.ablation.request import Request
    from harness.reporting.ablation.record import AblationRecord
    from harness.reporting.document import Cell

MORE = 2
"""Seeds that are proposed beside those that there are."""


def failures(record: AblationRecord) -> Section:
    """Return the section on trainings that have no score, and why."""
    found = record.found
    rows: list[list[Cell]] = []
    for run in found.outcomes:
        if run.state != "COMPLETE":
            last = max(record.reports.get(run.number, {}), default=None)
            reason = run.error or ("it was not trained yet" if run.state == "MISSING" else None)
            rows.append([run.number, run.variant, run.seed, STATES[run.state], last, reason])
    if not rows:
        return Section("Failures", [Note("No training failed, and none is missing.")])
    columns = [Column("run"), Column("variant"), Column("seed"), Column("state"), Column("at step"), Column("reason")]
    caption = "Trainings without a score. What failed is never trained again and counts in no mean."
    blocks: list[Block] = [Table("failures", caption, columns, rows, shown=200)]
    base = found.request.base
    if any(run.variant == base and run.state != "COMPLETE" for run in found.outcomes):
        blocks.append(Note(f"{base}, the base, lacks trainings: no variant has a pair for these seeds.", "caution"))
    uneven = [name for name in record.variants if 0 < len(record.complete[name]) < len(found.request.seeds)]
    if uneven:
        blocks.append(Note(f"Means of {listed(uneven)} are over fewer seeds than others; differences are over the "
                           "seeds that both have.", "caution"))  # fmt: skip
    return Section("Failures", blocks)


def go_on(record: AblationRecord) -> Section:
    """Return commands that lead further."""
    name, seeds = shlex.quote(record.found.name), record.found.request.seeds
    where = storage_option(record.folder)
    more = tuple(range(max(seeds) + 1, max(seeds) + 1 + MORE))
    rows = [
        (again(record, (*seeds, *more)), "train more seeds; those that are there stay"),
        (f"s4 report {name}{where}", "this report again"),
        ("s4 ui", "its records in MLflow"),
    ]
    if unfinished(record.found):
        rows.insert(0, (again(record, seeds), "train what is missing"))
    return Section("Go on", [Commands(rows)])


def again(record: AblationRecord, seeds: Sequence[int]) -> str:
    """Return the command that goes on with the ablation, with these seeds."""
    request, found = record.found.request, record.found
    if found.others:
        words = ["s4", "ablate", _plan(request), "--preset", request.preset, "--seeds", ",".join(map(str, seeds))]
    else:
        words = ["s4", "noise", request.preset, "--seeds", str(len(seeds))]
    if request.vary_data:
        words.append("--vary-data")
    if found.others and found.metric != "val/miou":
        words += ["--metric", found.metric]
    for path, value in request.settings.items():
        words += ["--set", f"{path}={value}"]
    if found.name != request.plan:
        words += ["--name", found.name]
    return shlex.join(words) + storage_option(record.folder)


def _plan(request: Request) -> str:
    """Return the plan's name where it comes with the package, or else that of a file, which must be found again."""
    from search_spaces.ablation import list_plans, load_plan

    shipped = request.plan in list_plans() and load_plan(request.plan).text == request.plan_text
    return request.plan if shipped else f"{request.plan}.yaml"
