"""Result of a search or a training in a sentence, its facts, and its leaderboard."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from harness.formats import duration
from harness.reporting.document import Block, Facts, Note, Section
from harness.reporting.figures import WORDS
from harness.reporting.record import Record
from harness.reporting.results import to_table


def lead(record: Record) -> str:
    """Return the result in a sentence."""
    results, best, baseline = record.results, record.results.best, record.results.baseline
    if best is None or best.best is None:
        many = len(results.rows)
        begun = f"{many} {'was' if many == 1 else 'were'} begun"
        return f"No trial reached the horizon of {results.horizon} steps yet; {begun}."
    value = f"{results.metric} {best.best:.4f} at step {best.best_step}"
    if results.kind == "train":
        return f"The training reached {value} of {results.horizon}."
    if baseline is best:
        return f"Nothing beat the published configuration: trial 0 is the best with {value}."
    text = f"Trial {best.number} is the best with {value}"
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
    results, info = record.results, record.info
    rows = [("Preset", results.preset), *(_search_facts(record) if results.kind == "search" else ())]
    rows.append(("Objective" if len(results.objectives) < 2 else "Objectives", _objectives(record)))
    rows.append(("Horizon", f"{results.horizon} steps" + (f", a report every {info.report_every}" if info else "")))
    if info is not None and info.settings:
        rows.append(("Set by hand", ", ".join(f"{path} = {value}" for path, value in info.settings.items())))
    return [*rows, *_run_facts(record)]


def _search_facts(record: Record) -> list[tuple[str, str]]:
    """Return what a training has not."""
    results, plan = record.results, record.options
    states = ", ".join(f"{count} {WORDS[state]}" for state, count in results.counts.items())
    trials, planned = str(len(results.rows)), plan.get("trials")
    if planned and planned != len(results.rows):
        trials += f" of {planned}"
    rows = [
        ("Search space", f"{results.space}, {len(results.paths)} parameters"),
        ("Trials", f"{trials}: {states}" if states else trials),
    ]
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
    """Return what it cost, and what it was done with."""
    times, info = record.times, record.info
    rows = [("Wall clock", duration(record.results.elapsed_s))]
    if record.device_s is not None:
        rows.append(("Devices held", f"{record.device_s / 3600:.3g} device-hours"))
    if times.began_unix is not None:
        rows.append(("Begun", datetime.fromtimestamp(times.began_unix, UTC).strftime("%Y-%m-%d %H:%M UTC")))
    if len(times.sessions) > 1:
        rows.append(("Sessions", str(len(times.sessions))))
    if info is not None and info.revision:
        rows.append(("Revision", f"`{info.revision[:12]}`"))
    if info is not None and info.data_digest:
        rows.append(("Data", f"{info.config.get('data', {}).get('name', 'own')}, splits `{info.data_digest}`"))
    return rows


def leaderboard(record: Record) -> Section:
    """Return the table of all trials, best first."""
    caption = (
        "All trials, best first. Trials that reached the horizon come first, for an early value says little about a "
        "late one."
    )
    return Section("Leaderboard", [replace(to_table(record.results), caption=caption)])


def _objectives(record: Record) -> str:
    words = {"max": "maximised", "min": "minimised"}
    pairs = [text.rpartition(":") for text in record.results.objectives or [f"{record.results.metric}:max"]]
    return ", ".join(f"{metric}, {words[mode]}" for metric, _, mode in pairs)
