"""Result of an ablation in a sentence, its facts and its failures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from harness.ablation.confirm import confirmation_table, verdict_lines
from harness.ablation.doubts import FEWEST_SEEDS, doubts
from harness.ablation.request import Request
from harness.ablation.results import Ablation
from harness.formats import counted, device_hours, duration
from harness.reporting.ablation.record import AblationRecord, listed, signed
from harness.reporting.document import Block, Cell, Column, Facts, Note, Section, Table, Text
from harness.reporting.overview import by_hand, origin
from harness.reporting.record import lanes
from harness.statistics.compare import ALPHA, Comparison, Verdict

STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed", "INTERRUPTED": "unfinished",
          "RUNNING": "unfinished", "MISSING": "missing"}  # fmt: skip
"""Of trainings, for people."""


def lead(ablation: Ablation) -> str:
    """Return the result in a sentence, and never more than the seeds allow."""
    base, metric = ablation.request.base, ablation.metric
    if ablation.request.confirms is not None:
        said = verdict_lines(ablation)[-1]
        return f"{said[0].upper()}{said[1:]}."
    if not ablation.others:
        return alone(ablation)
    versus = ablation.compare(metric)
    gains = {name: one.difference for name, one in versus.items() if one.difference is not None}
    unscored = any(run.state == "COMPLETE" and metric not in run.metrics for run in ablation.outcomes)
    if not gains:
        needed = metric if unscored else "a complete training"
        return f"No variant can be compared yet: it takes {needed} of it and of {base} with the same seed."
    seeds = sorted({versus[name].n for name in gains} - {1})
    if max(seeds, default=1) < FEWEST_SEEDS:
        far = max(gains, key=lambda name: abs(gains[name]))
        each = "Two seeds" if seeds else "One seed"
        return (f"{each} each: {far} is furthest from {base}, by {signed(gains[far])} {metric}, and whether that is "
                "more than the noise of seeds nobody can say.")  # fmt: skip
    over = f"over {' to '.join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))} paired seeds"
    verdicts = {name: versus[name].verdict for name in gains}
    parts = []
    for verdict in (Verdict.BETTER, Verdict.WORSE):
        names = [f"{name} ({signed(gains[name])})" for name, own in verdicts.items() if own == verdict]
        if names:
            parts.append(f"{listed(names)} {'is' if len(names) == 1 else 'are'} {verdict} than {base} in {metric}")
    if not parts:
        scored = f" with {metric}" if unscored else ""
        return (f"No variant{scored} differs from {base} by more than the noise of seeds {over}: mean differences in "
                f"{metric} lie between {signed(min(gains.values()))} and {signed(max(gains.values()))}.")  # fmt: skip
    noise = [*verdicts.values()].count(Verdict.NOISE)
    rest = f"; {counted(noise, 'variant')} {'lies' if noise == 1 else 'lie'} within the noise of seeds" if noise else ""
    return f"{' and '.join(parts)}, {over}{rest}."


def alone(ablation: Ablation) -> str:
    """Return what one configuration by itself says: how far its seeds scatter."""
    base, over = ablation.request.base, ablation.summary(ablation.request.base, ablation.metric)
    if over.mean is None or over.std is None:
        return f"Two complete trainings of {base} with different seeds are needed to see how far seeds scatter."
    return f"{base} reaches {ablation.metric} {over.mean:.4f}, and its {over.n} seeds scatter by {over.std:.4f}."


def overview(record: AblationRecord) -> Section:
    """Return the facts, and what must be kept in mind with them."""
    blocks: list[Block] = [Note(text, "missing") for text in record.missing]
    if unfinished(record.ablation):
        blocks.append(Note("Not all trainings are over: everything here is as far as it was when this was written."))
    if record.ablation.request.confirms is not None:
        blocks += [Text(line) for line in verdict_lines(record.ablation)]
        blocks.append(confirmation_table(record.ablation))
    cautions = [f"This {text}." for text in doubts(record.ablation)]
    cautions += few_seeds(record.ablation.compare(record.metric))
    blocks += [Note(text, "caution") for text in cautions]
    return Section("Overview", [*blocks, Facts(facts(record)), *by_hand(record.ablation.request.settings),
                               _variants(record.ablation.request)])  # fmt: skip


def unfinished(ablation: Ablation) -> bool:
    """Return whether trainings are missing or can go on."""
    return any(run.state in ("MISSING", "RUNNING", "INTERRUPTED") for run in ablation.outcomes)


def few_seeds(compared: Mapping[str, Comparison]) -> list[str]:
    """Return what so few seeds cannot show; nothing where they are many, or where nothing is compared."""
    most = max((versus.n for versus in compared.values()), default=0)
    if not compared or any(versus.p is not None for versus in compared.values()):
        return []
    if most < 2:
        return ["Without two seeds that a variant and the base both have, there are no intervals and no verdicts: "
                "differences here may be chance alone."]  # fmt: skip
    smallest = min(versus.smallest_p for versus in compared.values())
    return [f"Verdicts rest on the paired t-test, which supposes that differences scatter normally. The sign-flip "
            f"test, which does not, cannot fall below p = {smallest:.2g} with {most} seeds, and below {ALPHA} only "
            "with six or more."]  # fmt: skip


def facts(record: AblationRecord) -> list[tuple[str, str]]:
    """Return what was done, what it cost and what it was done with, as names and values, as far as it is known."""
    ablation, request = record.ablation, record.ablation.request
    info, spans = request.info, record.times.spans
    states = [STATES[run.state] for run in ablation.outcomes]
    numbers = [f"{states.count(state)} {state}" for state in dict.fromkeys(STATES.values()) if state in states]
    trainings = f"{len(states)}, all {states[0]}" if len(numbers) == 1 else f"{len(states)}: {', '.join(numbers)}"
    drawn = "initialisation, order and splits" if request.draws_data else "initialisation and order; splits are fixed"
    compared = counted(len(request.variants), "variant")
    if len(request.tried) < len(request.variants):
        compared = f"{len(request.tried)} of {compared}"
    rows = [
        ("Plan", f"{request.plan}, {compared}"),
        ("Preset", request.preset),
        ("Base", request.base),
        ("Judged by", ablation.metric),
        ("Seeds", ", ".join(map(str, request.seeds))),
        ("A seed draws", drawn),
        ("Paired", "variants share what a seed draws"),
        ("Horizon", f"{info.horizon} steps, a report every {info.report_every}"),
        ("Trainings", trainings),
    ]
    rows.append(("Wall clock", duration(ablation.elapsed_s)))
    rows.append(("Devices held", device_hours(ablation.device_s, record.times.card_s)))
    if spans:
        rows.append(("Trainings at once, at most", str(max(lanes(spans)) + 1)))
        rows.append(("A training, median", duration(statistics.median(span.end_s - span.start_s for span in spans))))
    return [*rows, *origin(record.times, record.revision, request.data, request.data_digest)]


def _variants(request: Request) -> Table:
    rows = []
    for variant in request.tried:
        is_base = variant.name == request.base_of(variant.name)
        # what a group sets is read from its base alone
        sets = variant.overrides if is_base and variant.group else request.difference(variant.name)
        words = ", ".join(f"{path} = {value}" for path, value in sets.items())
        rows.append((variant.name, ": ".join(filter(None, ["the base" if is_base else "", words]))))
    columns = [Column("variant"), Column(f"differs from {request.base} in", name="difference")]
    return Table("variants", f"What is compared; other settings are those of {request.preset}.", columns, rows)


def failures(record: AblationRecord) -> Section:
    """Return the section on trainings that have no score, and why."""
    rows: list[list[Cell]] = []
    lost = [run for run in record.ablation.outcomes if run.state != "COMPLETE"]
    for run in lost:
        last = max(record.reports.get(run.number, {}), default=None)
        reason = run.error or ("it was not trained yet" if run.state == "MISSING" else None)
        rows.append([run.number, run.variant, run.seed, STATES[run.state], last, reason])
    if not rows:
        return Section("Failures", [Note("No training failed, and none is missing.")])
    columns = [Column(title) for title in ("run", "variant", "seed", "state", "at step", "reason")]
    caption = "Trainings without a score. What failed is never trained again and counts in no mean."
    blocks: list[Block] = [Table("failures", caption, columns, rows, shown=200)]
    if any(run.variant == record.base_of(run.variant) for run in lost):
        text = f"{record.base}, the base, lacks trainings: no variant has a pair for these seeds."
        blocks.append(Note(text, "caution"))
    uneven = [name for name, runs in record.complete.items() if 0 < len(runs) < len(record.ablation.request.seeds)]
    if uneven:
        blocks.append(Note(f"Means of {listed(uneven)} are over fewer seeds than others; differences are over the "
                           "seeds that both have.", "caution"))  # fmt: skip
    return Section("Failures", blocks)
