"""What the report of an ablation says first: what came of it, and what must be kept in mind with it."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from harness.formats import duration
from harness.reporting.ablation.words import count, listed, signed
from harness.reporting.document import Block, Column, Facts, Note, Section, Table
from harness.reporting.times import lanes
from harness.statistics.compare import Verdict
from harness.statistics.permutation import ALPHA

if TYPE_CHECKING:
    from harness.ablation.results import Ablation
    from harness.reporting.ablation.record import AblationRecord
    from harness.statistics.compare import Comparison

STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed", "INTERRUPTED": "unfinished",
          "RUNNING": "unfinished", "MISSING": "missing"}  # fmt: skip
"""Of trainings, for people."""


def alone(found: Ablation) -> str:
    """Return what one configuration by itself says: how far its seeds scatter."""
    base, over = found.request.base, found.summary(found.request.base, found.metric)
    if over.mean is None or over.std is None:
        return f"Two complete trainings of {base} with different seeds are needed to see how far seeds scatter."
    return f"{base} reaches {found.metric} {over.mean:.4f}, and its {over.n} seeds scatter by {over.std:.4f}."


def lead(found: Ablation) -> str:
    """Return the result in a sentence, and never more than the seeds allow."""
    base, metric = found.request.base, found.metric
    if not found.others:
        return alone(found)
    compared = {name: versus for name, versus in found.compare(metric).items() if versus.difference is not None}
    if not compared:
        return f"No variant can be compared yet: it takes a complete training of it and of {base} with the same seed."
    if all(versus.n < 2 for versus in compared.values()):
        far, versus = max(compared.items(), key=lambda pair: abs(pair[1].difference or 0.0))
        return (f"One seed each: {far} is furthest from {base}, by {signed(versus.difference or 0.0)} {metric}, and "
                "whether that is more than the noise of seeds nobody can say.")  # fmt: skip
    better, worse, noise = (
        [f"{name} ({signed(versus.difference or 0.0)})" for name, versus in compared.items() if versus.verdict == kind]
        for kind in (Verdict.BETTER, Verdict.WORSE, Verdict.NOISE)
    )
    over = f"over {_seeds([versus.n for versus in compared.values() if versus.n > 1])}"
    if not better and not worse:
        low, high = (
            min((v.difference or 0.0) for v in compared.values()),
            max((v.difference or 0.0) for v in compared.values()),
        )
        return (f"No variant differs from {base} by more than the noise of seeds {over}: mean differences in {metric} "
                f"lie between {signed(low)} and {signed(high)}.")  # fmt: skip
    parts = [f"{listed(names)} {'is' if len(names) == 1 else 'are'} {word} than {base} in {metric}"
             for names, word in ((better, "better"), (worse, "worse")) if names]  # fmt: skip
    rest = ""
    if noise:
        rest = f"; {count(len(noise), 'variant')} {'lies' if len(noise) == 1 else 'lie'} within the noise of seeds"
    return f"{' and '.join(parts)}, {over}{rest}."


def overview(record: AblationRecord) -> Section:
    """Return the facts, and what must be kept in mind with them."""
    blocks: list[Block] = [Note(text, "missing") for text in record.missing]
    if unfinished(record.found):
        blocks.append(Note("Not all trainings are over: everything here is as far as it was when this was written."))
    blocks += [Note(text, "caution") for text in few_seeds(record.found)]
    return Section("Overview", [*blocks, Facts(facts(record)), _variants(record.found)])


def unfinished(found: Ablation) -> bool:
    """Return whether trainings are missing or can go on."""
    return any(run.state in ("MISSING", "RUNNING", "INTERRUPTED") for run in found.outcomes)


def few_seeds(found: Ablation) -> list[str]:
    """Return what so few seeds cannot show; nothing where they are many."""
    compared = found.compare(found.metric)
    if not found.others:
        return []
    most = max((versus.n for versus in compared.values()), default=0)
    if most < 2:
        return ["Without two seeds that a variant and the base both have, there are no intervals and no verdicts: "
                "differences here may be chance alone."]  # fmt: skip
    return [_normal(compared, most)] if all(versus.p is None for versus in compared.values()) else []


def _normal(compared: dict[str, Comparison], most: int) -> str:
    smallest = min(versus.smallest_p for versus in compared.values())
    return (f"Verdicts rest on the paired t-test, which supposes that differences scatter normally. The sign-flip "
            f"test, which does not, cannot fall below p = {smallest:.2g} with {most} seeds, and below {ALPHA} only "
            "with six or more.")  # fmt: skip


def facts(record: AblationRecord) -> list[tuple[str, str]]:
    """Return what was done, as names and values; what is not known is left out."""
    found, request = record.found, record.found.request
    schedule = request.config.schedule
    drawn = "initialisation, order and splits" if request.vary_data else "initialisation and order; splits are fixed"
    rows = [
        ("Plan", f"{request.plan}, {count(len(request.variants), 'variant')}"),
        ("Preset", request.preset),
        ("Base", request.base),
        ("Judged by", found.metric),
        ("Seeds", ", ".join(map(str, request.seeds))),
        ("A seed draws", drawn),
        ("Paired", "variants share what a seed draws"),
        ("Horizon", f"{schedule.steps} steps, a report every {schedule.evaluate_every}"),
        ("Trainings", _trainings(found)),
    ]
    if request.settings:
        rows.append(("Set by hand", ", ".join(f"{path} = {value}" for path, value in request.settings.items())))
    return [*rows, *_run_facts(record)]


def _run_facts(record: AblationRecord) -> list[tuple[str, str]]:
    """Return what it cost, and what it was done with."""
    found, times, spans = record.found, record.times, record.times.spans
    rows = [("Wall clock", duration(found.elapsed_s)), ("Devices held", f"{found.device_s / 3600:.3g} device-hours")]
    if spans:
        rows.append(("Trainings at once, at most", str(max(lanes(spans)) + 1)))
        rows.append(("A training, median", duration(statistics.median(span.end_s - span.start_s for span in spans))))
    if times.began_unix is not None:
        rows.append(("Begun", datetime.fromtimestamp(times.began_unix, UTC).strftime("%Y-%m-%d %H:%M UTC")))
    if len(times.sessions) > 1:
        rows.append(("Sessions", str(len(times.sessions))))
    if times.git_sha:
        rows.append(("Revision", f"`{times.git_sha[:12]}`"))
    request = found.request
    return [*rows, ("Data", f"{request.config.data.name}, splits `{request.data_digest}`")]


def _trainings(found: Ablation) -> str:
    states = [STATES[run.state] for run in found.outcomes]
    counted = [f"{states.count(state)} {state}" for state in dict.fromkeys(STATES.values()) if state in states]
    return f"{len(states)}, all {states[0]}" if len(counted) == 1 else f"{len(states)}: {', '.join(counted)}"


def _variants(found: Ablation) -> Table:
    request = found.request
    rows = []
    for variant in request.variants:
        words = ", ".join(f"{path} = {value}" for path, value in request.difference(variant.name).items())
        rows.append((variant.name, words or "the base"))
    columns = [Column("variant"), Column(f"differs from {request.base} in", name="difference")]
    return Table("variants", f"What is compared; other settings are those of {request.preset}.", columns, rows)


def _seeds(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low} paired seeds" if low == high else f"{low} to {high} paired seeds"
