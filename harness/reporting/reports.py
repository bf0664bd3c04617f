"""Reports of runs of every kind: their sections, and their folder of page, text, tables and figures."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from harness.reporting.ablation.record import read_ablation
from harness.reporting.ablation.report import ablation_document
from harness.reporting.best import draw_best
from harness.reporting.document import FOLDER, PAGE, Document
from harness.reporting.figures import draw
from harness.reporting.next_steps import search_steps, training_steps
from harness.reporting.overview import faults, leaderboard, overview, timing
from harness.reporting.parameters import parameters
from harness.reporting.progress import pareto, progress
from harness.reporting.pruning import pruning, rung_steps
from harness.reporting.record import Record, read_record
from harness.reporting.results import lead
from harness.reporting.scaling import is_scaling, scaling_document
from harness.reporting.start import start_section
from harness.reporting.themes import DARK, LIGHT
from harness.reporting.training import classes, curves, predictions
from harness.run_folder import kind_of
from harness.tables import Cell, markdown_inline, markdown_text, spans, table_csv, table_latex, table_markdown
from trainers.drafts import draft_name, held

TEXT = "report.md"
LEADING = re.compile(r"([-+]?\d+(?:\.\d+)?) [±\[]")
"""The number that cells such as `+0.01 [-0.01, +0.03]` are sorted by."""


def report_on(folder: Path) -> list[Path]:
    """Write the report of the run in a folder, into `FOLDER` there; return its files.

    Raises:
        UsageError: there are no results.
        OSError: it cannot be written.
    """
    if is_scaling(folder):
        document = scaling_document(folder)
    elif kind_of(folder) in ("ablation", "confirm"):
        document = ablation_document(read_ablation(folder), folder)
    else:
        record = read_record(folder)
        draw_best(folder, record.results)
        document = search_document(record) if record.results.kind == "search" else training_document(record)
    return write_report(document, folder / FOLDER, f"Written by s4-harness from what lies in `{folder.name}`.")


def search_document(record: Record) -> Document:
    """Return the report of a search."""
    sections = [overview(record), leaderboard(record), progress(record), pareto(record),
                parameters(record, rung_steps(record)), pruning(record), predictions(record), timing(record),
                start_section(record.times), faults(record), search_steps(record)]  # fmt: skip
    return Document(
        record.name, "search", lead(record.results), [section for section in sections if section is not None]
    )


def training_document(record: Record) -> Document:
    """Return the report of a training."""
    sections = [overview(record), curves(record), classes(record), predictions(record), timing(record),
                start_section(record.times), faults(record), training_steps(record)]  # fmt: skip
    return Document(
        record.name, "training", lead(record.results), [section for section in sections if section is not None]
    )


def write_report(document: Document, folder: Path, foot: str = "") -> list[Path]:
    """Write a report, in place of what the folder holds, and return its files, the page first; `foot` ends the page.

    Readers see the old report or the new one. Where it fails, the old one stays.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = draft_name(folder)
    new.mkdir()
    try:
        with held(new):
            _fill(new, document, foot)
            _swap(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: (path.name != PAGE, path))


class Looks(NamedTuple):
    """PNG files of a figure; the same one twice where it has one look."""

    light: Path
    dark: Path


def _fill(folder: Path, document: Document, foot: str) -> None:
    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    pictures = {figure.name: Looks(*draw(figure, folder / "figures")) for figure in document.figures}
    for picture in document.pictures:
        copy = folder / "figures" / f"{picture.name}.png"
        shutil.copyfile(picture.path, copy)
        pictures[picture.name] = Looks(copy, copy)
    for table in document.tables:
        (folder / "tables" / f"{table.name}.csv").write_text(table_csv(table), encoding="utf-8")
        (folder / "tables" / f"{table.name}.tex").write_text(table_latex(table), encoding="utf-8")
    addresses = {name: f"figures/{looks.light.name}" for name, looks in pictures.items()}
    (folder / TEXT).write_text(to_markdown(document, addresses), encoding="utf-8")
    (folder / PAGE).write_text(to_html(document, pictures, foot), encoding="utf-8")


def _swap(new: Path, folder: Path) -> None:
    old = draft_name(folder)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def to_html(document: Document, pictures: Mapping[str, Looks], foot: str = "") -> str:
    """Return a report as one page with its pictures (by the name of the figure) in it, and `foot` at its end."""
    template = TEMPLATES.get_template("report.html")
    return template.render(document=document, pictures=pictures, foot=foot, light=LIGHT, dark=DARK)


def to_markdown(document: Document, pictures: Mapping[str, str]) -> str:
    """Return a report as Markdown; addresses of pictures are by the name of the figure."""
    return TEMPLATES.get_template("report.md").render(document=document, pictures=pictures)


def html_inline(text: str) -> Markup:
    """Return a text with its code."""
    pieces = (Markup("<code>{}</code>").format(piece) if code else escape(piece) for code, piece in spans(text))
    return Markup("").join(pieces)


def sort_value(cell: Cell) -> str | None:
    """Return the number that a page sorts a cell by, "" for an empty one; none where it sorts texts."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        first = LEADING.match(cell)
        return repr(float(first[1])) if first else None
    return None if isinstance(cell, bool) else repr(cell)


def data_uri(path: Path) -> str:
    """Return a PNG as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {
    "data_uri": data_uri, "inline": html_inline, "markdown_inline": markdown_inline, "markdown_table": table_markdown,
    "markdown_text": markdown_text, "sort_value": sort_value, "type_name": lambda block: type(block).__name__,
}  # fmt: skip
