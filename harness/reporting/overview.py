"""What a report says first: what was searched, what came of it, the best trials, and where to go on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from harness.formats import duration
from harness.reporting.document import Block, Facts, Note, Section
from harness.reporting.figures import WORDS
from harness.reporting.results import to_table

if TYPE_CHECKING:
    from harness.reporting.record import Record


def lead(record: Record) -> str:
    """Return the result in a sentence."""
    results, best, baseline = record.results, record.results.best, record.results.baseline
    if best is None or best.best is None:
        many = len(results.rows)
        begun = f"{many} {'was' if many == 1 else 'were'} begun"
        return f"No trial reached the horizon of {results.horizon} steps yet; {begun}."
    found = f"{results.metric} {best.best:.4f} at step {best.best_step}"
    if results.kind == "train":
        return f"The training reached {found} of {results.horizon}."
    if baseline is best:
        return f"Nothing beat the published configuration: trial 0 is the best with {found}."
    text = f"Trial {best.number} is the best with {found}"
    if baseline is not None and baseline.state == "COMPLETE" and baseline.best is not None:
        return f"{text}; the published configuration has {baseline.best:.4f} ({best.best - baseline.best:+.4f})."
    return f"{text}; the published configuration did not reach the horizon."


def overview(record: Record) -> Section:
    """Return the facts, and what must be kept in mind with them."""
    blocks: list[Block] = [Note(text, "missing") for text in record.missing]
    if record.results.kind == "search" and record.results.best is not None:
        blocks.append(Note(
            "These are numbers of one seed each, and the best of many is better than it is. "
            f"`s4 confirm {record.name}` trains the best and the published configuration again with several seeds and "
            "tells whether the difference is more than noise.", "caution"))  # fmt: skip
    if record.unfinished:
        blocks.append(Note("Not all trials are over: everything here is as far as it was when this was written."))
    return Section("Overview", [*blocks, Facts(facts(record))])


def facts(record: Record) -> list[tuple[str, str]]:
    """Return what was done, as names and values; what is not known is left out."""
    results = record.results
    found = [("Preset", results.preset), *(_search_facts(record) if results.kind == "search" else ())]
    found.append(("Objective" if len(results.objectives) < 2 else "Objectives", _objectives(record)))
    found.append(
        (
            "Horizon",
            f"{results.horizon} steps" + (f", a report every {record.info.report_every}" if record.info else ""),
        )
    )
    if record.info is not None and record.info.settings:
        found.append(("Set by hand", ", ".join(f"{path} = {value}" for path, value in record.info.settings.items())))
    return [*found, *_run_facts(record)]


def _search_facts(record: Record) -> list[tuple[str, str]]:
    """Return what a training has not."""
    results, plan = record.results, record.options
    counted = ", ".join(f"{count} {WORDS[state]}" for state, count in results.counts.items())
    asked, many = plan.get("trials"), f"{len(results.rows)}"
    if asked and asked != len(results.rows):
        many += f" of {asked}"
    found = [
        ("Search space", f"{results.space}, {len(results.paths)} parameters"),
        ("Trials", f"{many}: {counted}" if counted else many),
    ]
    if plan:
        found += [("Sampler", f"{plan['sampler']}, seed {plan['seed']}"), ("Scheduler", _scheduler(record))]
    if plan.get("constraint"):
        found.append(("Constraints", ", ".join(plan["constraint"])))
    if plan.get("warm_start"):
        found.append(("Learnt from", str(plan["warm_start"])))
    return found


def _run_facts(record: Record) -> list[tuple[str, str]]:
    """Return what it cost, and what it was done with."""
    times = record.times
    found = [("Wall clock", duration(record.results.elapsed_s))]
    if record.device_s is not None:
        found.append(("Devices held", f"{record.device_s / 3600:.3g} device-hours"))
    if times.began_unix is not None:
        found.append(("Begun", datetime.fromtimestamp(times.began_unix, UTC).strftime("%Y-%m-%d %H:%M UTC")))
    if len(times.sessions) > 1:
        found.append(("Sessions", str(len(times.sessions))))
    if record.info is not None and record.info.revision:
        found.append(("Revision", f"`{record.info.revision[:12]}`"))
    if record.info is not None and record.info.data_digest:
        name = record.info.config.get("data", {}).get("name", "own")
        found.append(("Data", f"{name}, splits `{record.info.data_digest}`"))
    return found


def leaderboard(record: Record) -> Section:
    """Return the table of all trials, best first."""
    caption = (
        "All trials, best first. Trials that reached the horizon come first, for an early value says little about a "
        "late one."
    )
    return Section("Leaderboard", [replace(to_table(record.results), caption=caption)])


def _scheduler(record: Record) -> str:
    plan, name = record.options, str(record.options["scheduler"])
    if name in ("asha", "hyperband"):
        return f"{name}, keeps 1 in {plan['reduction_factor']}"
    return name


def _objectives(record: Record) -> str:
    words = {"max": "maximised", "min": "minimised"}
    pairs = [text.rpartition(":") for text in record.results.objectives or [f"{record.results.metric}:max"]]
    return ", ".join(f"{metric}, {words[mode]}" for metric, _, mode in pairs)
