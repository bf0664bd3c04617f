"""A report as Markdown, with its pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, assert_never

from harness.reporting.document import Commands, Facts, Figure, Note, Picture, Table, Text, spans

if TYPE_CHECKING:
    from harness.reporting.document import Block, Document

SPECIAL = re.compile(r"([\\*_\[\]<>|#~])")
NOTES = {"remark": "Note", "missing": "Missing", "caution": "Caution"}


def to_markdown(document: Document, pictures: Mapping[str, str]) -> str:
    """Return the report as Markdown.

    Args:
        pictures: addresses of pictures, by the name of the figure.
    """
    parts = [f"# {escape(document.title)}", inline(document.lead)]
    for section in document.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_block(block, pictures) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """Return the table and its caption; strong rows are bold."""
    titles = [escape(column.title) for column in table.columns]
    rules = ["---:" if table.numeric(index) else "---" for index in range(len(titles))]
    lines = [titles, rules]
    for index, row in enumerate(table.rows[: table.shown]):
        cells = [escape(column.text(cell)) for column, cell in zip(table.columns, row, strict=True)]
        heavy = [index in table.strong or (index, column) in table.bold for column in range(len(cells))]
        lines.append([f"**{cell}**" if cell and strong else cell for cell, strong in zip(cells, heavy, strict=True)])
    more = f" {table.left_out} more rows: `tables/{table.name}.csv`." if table.left_out else ""
    return f"*{inline(table.caption)}*{more}\n\n" + "\n".join(_line(cells) for cells in lines)


def escape(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def inline(text: str) -> str:
    """Return a text with its code, on one line."""
    return "".join(f"`{piece}`" if code else _kept(piece) for code, piece in spans(text))


def _kept(piece: str) -> str:
    """Escape a piece between codes, whose outer spaces stay."""
    return re.sub(r"\s+", " ", SPECIAL.sub(r"\\\1", piece))


def _block(block: Block, pictures: Mapping[str, str]) -> str:
    match block:
        case Text(text):
            return inline(text)
        case Note(text, kind):
            return f"> **{NOTES[kind]}:** {inline(text)}"
        case Facts(rows):
            return "\n".join(f"- {escape(name)}: {inline(value)}" for name, value in rows)
        case Commands(rows):
            width = max(len(command) for command, _ in rows)
            return "\n".join(f"    {command:{width}}    {' '.join(what.split())}" for command, what in rows)
        case Table():
            return table_markdown(block)
        case Figure() | Picture():
            return f"![{escape(block.alt)}]({pictures[block.name]})\n\n*{inline(block.caption)}*"
        case _:
            assert_never(block)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
