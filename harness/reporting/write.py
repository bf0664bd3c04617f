"""Writes a report into a folder: page, Markdown, tables and figures, all of it or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.reporting.figures import draw
from harness.reporting.html import Themed, to_html
from harness.reporting.markdown import to_markdown
from harness.tables import table_csv, table_latex

if TYPE_CHECKING:
    from harness.reporting.document import Document

FOLDER = "report"
"""Of a report, in the folder of what it reports on."""
PAGE, TEXT = "report.html", "report.md"


def write_report(document: Document, folder: Path, foot: str = "") -> list[Path]:
    """Write a report, in place of the one that the folder holds, and return its files, the page first.

    Readers see the old report or the new one. Where it fails, the old one stays.

    Args:
        folder: whose last part is the report's own; everything in it is replaced.
        foot: a line for the end of the page.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new.chmod(0o755)
        _fill(new, document, foot)
        _swap(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: path.name != PAGE)


def _fill(folder: Path, document: Document, foot: str) -> None:
    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    themed, addresses = {}, {}
    for figure in document.figures:
        drawn = draw(figure, folder / "figures")
        themed[figure.name] = Themed(drawn.light, drawn.dark)
        addresses[figure.name] = f"figures/{drawn.light.name}"
    for picture in document.pictures:
        copy = folder / "figures" / f"{picture.name}.png"
        shutil.copyfile(picture.path, copy)
        themed[picture.name], addresses[picture.name] = Themed(copy, copy), f"figures/{copy.name}"
    for table in document.tables:
        (folder / "tables" / f"{table.name}.csv").write_text(table_csv(table), encoding="utf-8")
        (folder / "tables" / f"{table.name}.tex").write_text(table_latex(table), encoding="utf-8")
    (folder / TEXT).write_text(to_markdown(document, addresses), encoding="utf-8")
    (folder / PAGE).write_text(to_html(document, themed, foot), encoding="utf-8")


def _swap(new: Path, folder: Path) -> None:
    """Put the new folder in the place of the old one."""
    old = new.with_name(f"{new.name}-old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
