"""A report as Markdown, with its pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

from harness.reporting.document import Commands, Facts, Figure, Note, Picture, Table, Text
from harness.tables import markdown_inline, markdown_text, table_markdown

if TYPE_CHECKING:
    from harness.reporting.document import Block, Document

NOTES = {"remark": "Note", "missing": "Missing", "caution": "Caution"}


def to_markdown(document: Document, pictures: Mapping[str, str]) -> str:
    """Return the report as Markdown.

    Args:
        pictures: addresses of pictures, by the name of the figure.
    """
    parts = [f"# {markdown_text(document.title)}", markdown_inline(document.lead)]
    for section in document.sections:
        parts.append(f"## {markdown_text(section.title)}")
        parts += [_block(block, pictures) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, pictures: Mapping[str, str]) -> str:
    match block:
        case Text(text):
            return markdown_inline(text)
        case Note(text, kind):
            return f"> **{NOTES[kind]}:** {markdown_inline(text)}"
        case Facts(rows):
            return "\n".join(f"- {markdown_text(name)}: {markdown_inline(value)}" for name, value in rows)
        case Commands(rows):
            width = max(len(command) for command, _ in rows)
            return "\n".join(f"    {command:{width}}    {' '.join(what.split())}" for command, what in rows)
        case Table():
            return table_markdown(block)
        case Figure() | Picture():
            return f"![{markdown_text(block.alt)}]({pictures[block.name]})\n\n*{markdown_inline(block.caption)}*"
        case _:
            assert_never(block)
