"""Report of an ablation: what differs, what of it chance explains, and where it comes from."""

from __future__ import annotations

from pathlib import Path

from harness.ablation.results import Ablation
from harness.reporting.ablation.comparison import comparison, seeds
from harness.reporting.ablation.differences import classes, forest
from harness.reporting.ablation.overview import failures, few_seeds, lead, overview
from harness.reporting.ablation.record import AblationRecord, read_record
from harness.reporting.ablation.trainings import curves, health, pictures, quality
from harness.reporting.document import Document, Facts, Note, Section
from harness.reporting.next_steps import ablation_steps
from harness.reporting.start import start_section


def ablation_document(ablation: Ablation, folder: Path) -> Document:
    """Return the report of an ablation whose folder this is; parts that are missing there are named in it."""
    record = read_record(ablation, folder)
    sections = [
        overview(record),
        comparison(record),
        forest(record) if ablation.others else None,
        seeds(record),
        classes(record),
        curves(record),
        quality(record),
        health(record),
        pictures(record),
        start_section(record.times),
        failures(record),
        ablation_steps(ablation, folder),
    ]
    kind = "confirmation" if ablation.request.confirms else "ablation"
    return Document(ablation.name, kind, lead(ablation), [section for section in sections if section is not None])


def scores_document(ablation: Ablation) -> Document:
    """Return the report of scores of which nothing else is known."""
    record = AblationRecord(ablation, Path(), {})
    few = [Note(text, "caution") for text in few_seeds(ablation.compare(ablation.metric))]
    facts = [("Base", record.base), ("Judged by", f"{record.metric}, higher is better"),
             ("Paired by", "seed: what variants share it should share")]  # fmt: skip
    sections = [Section("Overview", [*few, Facts(facts)]), comparison(record), forest(record), seeds(record)]
    return Document(ablation.name, "comparison", lead(ablation), [section for section in sections if section])
