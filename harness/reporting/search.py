"""The report of a search, and that of a training: which sections there are, and where they are written."""

from __future__ import annotations

from pathlib import Path

from harness.ablation.request import REQUEST
from harness.reporting.ablation import ablation_document
from harness.reporting.ablation.record import read_ablation
from harness.reporting.document import Document, Section
from harness.reporting.effort import effort, faults
from harness.reporting.front import front
from harness.reporting.overview import go_on, lead, leaderboard, overview
from harness.reporting.parameters import parameters
from harness.reporting.progress import progress
from harness.reporting.records import Record, read_record
from harness.reporting.stops import rung_steps, stops
from harness.reporting.training import classes, curves, predictions
from harness.reporting.write import FOLDER, write_report


def search_document(record: Record) -> Document:
    """Return the report of a search."""
    found = [
        overview(record),
        leaderboard(record),
        progress(record),
        front(record),
        parameters(record, rung_steps(record)),
        stops(record),
        effort(record),
        faults(record),
        go_on(record),
    ]
    return Document(record.name, "search", lead(record), _there(found))


def training_document(record: Record) -> Document:
    """Return the report of a training."""
    found = [overview(record), curves(record), classes(record), predictions(record), effort(record), faults(record),
             go_on(record)]  # fmt: skip
    return Document(record.name, "training", lead(record), _there(found))


def report_on(folder: Path) -> list[Path]:
    """Write the report of what is in a folder, into `FOLDER` there; return its files, the page first.

    It may be that of a search, a training or an ablation.

    Raises:
        UsageError: there are no results.
        OSError: it cannot be written.
    """
    return write_report(_document(folder), folder / FOLDER, f"Written by s4-harness from what lies in `{folder.name}`.")


def _document(folder: Path) -> Document:
    if (folder / REQUEST).exists():
        return ablation_document(read_ablation(folder), folder)
    record = read_record(folder)
    return search_document(record) if record.results.kind == "search" else training_document(record)


def _there(sections: list[Section | None]) -> list[Section]:
    return [section for section in sections if section is not None]
