"""The report of an ablation: which sections there are."""

from __future__ import annotations

from pathlib import Path

from harness.ablation.results import Ablation
from harness.reporting.ablation.classes import classes
from harness.reporting.ablation.comparison import comparison
from harness.reporting.ablation.curves import curves, health, quality
from harness.reporting.ablation.forest import forest
from harness.reporting.ablation.further import failures, go_on
from harness.reporting.ablation.overview import lead, overview
from harness.reporting.ablation.pictures import pictures
from harness.reporting.ablation.record import read_record
from harness.reporting.ablation.seeds import seeds
from harness.reporting.document import Document


def ablation_document(found: Ablation, folder: Path) -> Document:
    """Return the report of an ablation whose folder this is; parts that are missing there are named in it."""
    record = read_record(found, folder)
    sections = [
        overview(record),
        comparison(record),
        forest(record) if found.others else None,
        seeds(record),
        classes(record),
        curves(record),
        quality(record),
        health(record),
        pictures(record),
        failures(record),
        go_on(record),
    ]
    return Document(found.name, "ablation", lead(found), [section for section in sections if section is not None])
