"""A report as one HTML file that asks nothing of any other file or host."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, assert_never

from harness.reporting.document import Commands, Facts, Figure, Note, Picture, Table, Text
from harness.reporting.markdown import NOTES
from harness.reporting.page import SCRIPT, STYLE
from harness.tables import spans

if TYPE_CHECKING:
    from harness.reporting.document import Block, Cell, Column, Document, Section

LONG = 48
"""Letters of a cell beyond which its lines are broken."""
LEADING = re.compile(r"([-+]?\d+(?:\.\d+)?) [±\[]")
"""The number that cells such as `+0.01 [-0.01, +0.03]` are sorted by."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser is told: this page loads nothing."""


class Themed(NamedTuple):
    """PNG files of a figure; the same one twice where it has one look."""

    light: Path
    dark: Path


def to_html(document: Document, pictures: Mapping[str, Themed], foot: str = "") -> str:
    """Return the page.

    Args:
        pictures: files by the name of the figure; they are put into the page.
        foot: a line for the end of the page.
    """
    marks = _marks(document)
    links = "".join(f'<li><a href="#{mark}">{escape(section.title)}</a></li>'
                    for mark, section in zip(marks, document.sections, strict=True))  # fmt: skip
    sections = "".join(
        _section(section, mark, pictures) for mark, section in zip(marks, document.sections, strict=True)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="referrer" content="no-referrer">
<title>{escape(document.title)}: {escape(document.kind)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#content">To the content</a>
<header>
<p class="kind">{escape(document.kind)}</p>
<h1>{escape(document.title)}</h1>
<p class="lead">{inline(document.lead)}</p>
<button class="toggle" type="button" aria-label="Dark colours" title="Light or dark" hidden>&#9680;</button>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="content">
{sections}</main>
<footer>{inline(foot)}</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def table_html(table: Table) -> str:
    """Return a table that scrolls by itself where it is too wide, with the values to sort it by."""
    classes = ["number" if table.on_right(index) else "" for index in range(len(table.columns))]
    heads = "".join(f'<th scope="col"{_class(kind)}{_full_name(column)}>{escape(column.title)}</th>'
                    for column, kind in zip(table.columns, classes, strict=True))  # fmt: skip
    body = []
    for index, row in enumerate(table.rows[: table.shown]):
        kinds = [f"{kind} strong" if (index, place) in table.bold else kind for place, kind in enumerate(classes)]
        cells = "".join(_cell(cell, column, kind)
                        for cell, column, kind in zip(row, table.columns, kinds, strict=True))  # fmt: skip
        body.append(f"<tr{_class('strong') if index in table.strong else ''}>{cells}</tr>\n")
    more = f'<p class="more">{table.left_out} more rows: <code>tables/{table.name}.csv</code></p>\n'
    return (
        f'<div class="scroll" role="region" aria-label="{escape(_plain(table.caption))}" tabindex="0">\n'
        f'<table class="sortable" id="table-{table.name}">\n<caption>{inline(table.caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{''.join(body)}</tbody>\n</table>\n</div>\n"
        f"{more if table.left_out else ''}"
    )


def inline(text: str) -> str:
    """Return a text with its code."""
    return "".join(f"<code>{escape(piece)}</code>" if code else escape(piece) for code, piece in spans(text))


def _section(section: Section, mark: str, pictures: Mapping[str, Themed]) -> str:
    blocks = "".join(_block(block, pictures) for block in section.blocks)
    return f'<section aria-labelledby="{mark}">\n<h2 id="{mark}">{escape(section.title)}</h2>\n{blocks}</section>\n'


def _block(block: Block, pictures: Mapping[str, Themed]) -> str:
    match block:
        case Text(text):
            return f"<p>{inline(text)}</p>\n"
        case Note(text, kind):
            return f'<p class="note {kind}" role="note"><b>{NOTES[kind]}.</b> {inline(text)}</p>\n'
        case Facts(rows):
            pairs = (f"<div><dt>{escape(name)}</dt><dd>{inline(value)}</dd></div>" for name, value in rows)
            return f"<dl>{''.join(pairs)}</dl>\n"
        case Commands(rows):
            lines = "".join(f"<dt><code>{escape(command)}</code></dt><dd>{inline(what)}</dd>" for command, what in rows)
            return f'<dl class="commands">{lines}</dl>\n'
        case Table():
            return table_html(block)
        case Figure() | Picture():
            return _figure(block, pictures[block.name])
        case _:
            assert_never(block)


def _figure(block: Figure | Picture, files: Themed) -> str:
    alt = escape(block.alt)
    if files.light == files.dark:
        images = f'<img src="{data_uri(files.light)}" alt="{alt}">'
    else:
        images = "".join(f'<img class="{theme}" src="{data_uri(path)}" alt="{alt}">'
                         for theme, path in zip(files._fields, files, strict=True))  # fmt: skip
    kind = ' class="picture"' if isinstance(block, Picture) else ""
    return (
        f'<figure id="figure-{block.name}"{kind}><div class="scroll">{images}</div>\n'
        f"<figcaption>{inline(block.caption)}</figcaption></figure>\n"
    )


def data_uri(path: Path) -> str:
    """Return a PNG as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _cell(cell: Cell, column: Column, kind: str) -> str:
    text = column.text(cell)
    classes = " ".join([*kind.split(), *(["long"] if len(text) > LONG else [])])
    number = isinstance(cell, int | float) and not isinstance(cell, bool)
    first = LEADING.match(cell) if isinstance(cell, str) else None
    value = f' data-value="{cell!r}"' if number else ' data-value=""' if cell is None else ""
    if first:
        value = f' data-value="{float(first[1])!r}"'
    return f"<td{_class(classes)}{value}>{escape(text)}</td>"


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _full_name(column: Column) -> str:
    return f' title="{escape(column.name)}"' if column.name and column.name != column.title else ""


def _plain(text: str) -> str:
    return text.replace("`", "")


def _marks(document: Document) -> list[str]:
    """Return an anchor for each section; equal titles get numbers."""
    found: list[str] = []
    for section in document.sections:
        mark = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        found.append(mark if mark not in found else f"{mark}-{len(found)}")
    return found
