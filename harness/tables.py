r"""Tables, and their texts for a terminal, Markdown, CSV and LaTeX.

Captions are plain texts with `code` between backticks. LaTeX needs `\usepackage{booktabs}` in the preamble.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import rich.table
from rich import box
from rich.cells import cell_len
from rich.text import Text

Cell = float | int | str | bool | None | list[Any]
"""A value in a table; None where there is none."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
NOTHING = "–"  # noqa: RUF001  # an en dash is what typographers put into an empty cell
PLAIN_NOTHING = "-"
"""The same in a terminal and in Markdown."""
PROSE = 20
"""Least width of a column of prose in a terminal, in characters."""
MARKDOWN_SPECIAL = re.compile(r"([\\*\[\]<>|#~]|(?<![^\W_])_|_(?![^\W_]))")
"""What Markdown reads as more than text; of underscores those that are not within a word."""
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", NOTHING: "--", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$",
}  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t")
"""What a cell begins with that a spreadsheet computes."""
NUMBERS = re.compile(r"[-+\d.e,;±\[\] ]*\d[-+\d.e,;±\[\] ]*")
"""Cells of numbers and what holds them together."""
SIGN = re.compile(r"(?<![\w.])-(?=[\d.])")
"""Before a number, and not of an exponent."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    """For people."""
    name: str = ""
    """In CSV, where it must be found again; the title where it is empty."""
    form: str = ""
    """Format of numbers, as in `format`; empty: with four digits."""
    align: Literal["auto", "right"] = "auto"
    """`auto`: numbers to the right, texts to the left."""
    weight: int = 0
    """Of columns that a terminal has no room for, those of the least weight are left out, of equal ones the last."""
    prose: bool = False
    """Whether a terminal may break its cells into lines; those of other columns stay whole."""

    def text(self, cell: Cell, nothing: str = NOTHING) -> str:
        """Return a cell of the column for people."""
        if cell is None:
            return nothing
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        if isinstance(cell, str):
            return cell
        return format(cell, self.form) if self.form else f"{cell:.4g}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class Data:
    """Exact numbers, for CSV."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Table:
    """A table; where no column has a title it has no head.

    Raises:
        ValueError: the name is no file's name, or a row has not a cell a column.
    """

    name: str
    """Of its files: `tables/NAME.csv` with full precision, `tables/NAME.tex`."""
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    strong: frozenset[int] = frozenset()
    """Indices of rows that stand out."""
    bold: frozenset[tuple[int, int]] = frozenset()
    """Row and column of single cells that stand out."""
    shown: int = 50
    """Rows that pages show; the CSV holds all."""
    listed: int | None = None
    """Rows that a terminal shows; none: all."""
    exact: Data | None = None
    """What the CSV holds instead, where cells put several numbers together: `0.61 ± 0.02`."""
    styles: Mapping[int, str] = field(default_factory=dict)
    """Styles of rows in a terminal, as Rich names them, by index; strong rows without one are `bold green`."""
    gaps: frozenset[int] = frozenset()
    """Indices of rows above which a terminal leaves a line empty."""

    def __post_init__(self) -> None:
        check_name(self.name)
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {self.name} must have {len(self.columns)} cells, got {len(row)}: {row}")

    @property
    def left_out(self) -> int:
        """Rows that pages do not show."""
        return max(0, len(self.rows) - self.shown)

    def on_right(self, column: int) -> bool:
        """Return whether the cells of a column stand to the right, as numbers do."""
        if self.columns[column].align == "right" or self.columns[column].form:
            return True
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)

    def is_bold(self, row: int, column: int) -> bool:
        """Return whether a cell stands out, by itself or with its row."""
        return row in self.strong or (row, column) in self.bold

    def texts(self, nothing: str = NOTHING) -> Iterator[list[str]]:
        """Yield the cells of every row for people."""
        for row in self.rows:
            yield [column.text(cell, nothing) for column, cell in zip(self.columns, row, strict=True)]


def facts_table(name: str, caption: str, parts: Iterable[Sequence[tuple[str, str]]]) -> Table:
    """Return a table of names and values without a head, with a gap between its parts."""
    rows, gaps = list[tuple[str, str]](), set[int]()
    for part in parts:
        gaps.add(len(rows))
        rows += part
    return Table(name, caption, [Column(""), Column("", prose=True)], rows, gaps=frozenset(gaps - {0}))


def fitted(table: Table, width: int) -> dict[int, int]:
    """Return the width of each column that a terminal of `width` characters has room for, by the column's index.

    Two spaces are between columns, and titles are broken between words, before a column is left out. One column is
    always there, broken where it must be.
    """
    texts, least, most = [*table.texts(PLAIN_NOTHING)], list[int](), list[int]()
    for index, column in enumerate(table.columns):
        cells = max((cell_len(line) for row in texts for line in row[index].splitlines()), default=0)
        word = max(map(cell_len, column.title.split()), default=0)
        least.append(max(word, min(cells, PROSE) if column.prose else cells))
        most.append(max(cell_len(column.title), cells))
    kept = [*range(len(least))]
    going = sorted(kept, key=lambda index: (table.columns[index].weight, -index))
    while (room := width - sum(least[index] + 2 for index in kept)) < 0 and len(kept) > 1:
        kept.remove(going.pop(0))
    widths = dict[int, int]()
    for index in kept:
        widths[index] = max(1, min(most[index], least[index] + room))
        room -= widths[index] - least[index]
    return widths


def table_terminal(table: Table, width: int) -> tuple[rich.table.Table, list[Column]]:
    """Return the listed rows of a table for a terminal of `width` characters, and the columns that have no room."""
    table = replace(table, rows=table.rows[: table.listed])
    widths = fitted(table, width)
    left = 1 if sum(widths.values()) + 3 * len(widths) - 1 <= width else 0
    terminal = rich.table.Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, left),
                                show_header=any(head.title for head in table.columns))  # fmt: skip
    for index, room in widths.items():
        terminal.add_column(Text(table.columns[index].title), justify="right" if table.on_right(index) else "left",
                            overflow="fold", width=room)  # fmt: skip
    for index, texts in enumerate(table.texts(PLAIN_NOTHING)):
        if index in table.gaps:
            terminal.add_section()
        style = table.styles.get(index, "bold green" if index in table.strong else None)
        cells = [Text(texts[column]) for column in widths]  # as they are: Rich would read [brackets] as markup
        terminal.add_row(*cells, style=style)
    return terminal, [column for index, column in enumerate(table.columns) if index not in widths]


def table_csv(table: Table | Data) -> str:
    """Return all rows with full precision under the names of their columns; empty where there is no value.

    A text that a spreadsheet would take for a formula stands behind an apostrophe.
    """
    if isinstance(table, Table) and table.exact is not None:
        return table_csv(table.exact)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = [column if isinstance(column, str) else column.name or column.title for column in table.columns]
    for row in (titles, *table.rows):
        writer.writerow(["" if cell is None else csv_text(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def csv_text(text: str) -> str:
    """Return a text that a spreadsheet shows as it is; one that is a number stays that number."""
    text = text.replace("\r", " ")  # which ends a line, and the csv module does not quote
    return f"'{text}" if text.startswith(FORMULA) and not NUMBERS.fullmatch(text) else text


def table_markdown(table: Table) -> str:
    """Return a table below its caption, if it has one; what stands out is bold."""
    titles = [markdown_text(column.title) for column in table.columns]
    rules = ["---:" if table.on_right(index) else "---" for index in range(len(titles))]
    lines = [_markdown_line(titles), _markdown_line(rules)]
    for row, texts in enumerate([*table.texts(PLAIN_NOTHING)][: table.shown]):
        cells = map(markdown_text, texts)
        lines.append(_markdown_line(f"**{cell}**" if cell and table.is_bold(row, column) else cell
                                    for column, cell in enumerate(cells)))  # fmt: skip
    more = f" {table.left_out} more rows: `tables/{table.name}.csv`." if table.left_out else ""
    caption = f"*{markdown_inline(table.caption)}*{more}\n\n" if table.caption else ""
    return caption + "\n".join(lines)


def table_latex(table: Table) -> str:
    """Return a `table` with `booktabs` rules; what stands out is bold."""
    letters = "".join("r" if table.on_right(index) else "l" for index in range(len(table.columns)))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_inline(table.caption)}}}",
             rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{{letters}}}", r"\toprule",
             _latex_line(latex_text(column.title) for column in table.columns), r"\midrule"]  # fmt: skip
    for row, texts in enumerate([*table.texts()][: table.shown]):
        cells = map(latex_number, texts)
        lines.append(_latex_line(rf"\textbf{{{cell}}}" if table.is_bold(row, column) else cell
                                 for column, cell in enumerate(cells)))  # fmt: skip
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def markdown_text(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def markdown_inline(text: str) -> str:
    """Return a text with its code, on one line."""
    return "".join(f"`{piece}`" if code else MARKDOWN_SPECIAL.sub(r"\\\1", piece)
                   for code, piece in spans(" ".join(text.split())))  # fmt: skip


def latex_text(text: str) -> str:
    """Return a text that LaTeX prints as it is, on one line."""
    return "".join(LATEX_SPECIAL.get(letter, letter) for letter in " ".join(text.split()))


def latex_inline(text: str) -> str:
    """Return a text with its code in a typewriter face, on one line."""
    pieces = []
    for code, piece in spans(" ".join(text.split())):
        plain = "".join(LATEX_SPECIAL.get(letter, letter) for letter in piece)
        pieces.append(rf"\texttt{{{plain}}}" if code else plain)
    return "".join(pieces)


def latex_number(text: str) -> str:
    """Return a cell; signs of numbers are minuses and not hyphens, also in `-0.01 [-0.03, +0.01]`."""
    return SIGN.sub("$-$", latex_text(text)) if NUMBERS.fullmatch(text) else latex_text(text)


def spans(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the pieces of a text, and whether each is code; a backtick without its partner is text."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        pieces[-2:] = ["`".join(pieces[-2:])]
    for index, piece in enumerate(pieces):
        if piece:
            yield index % 2 == 1, piece


def check_name(name: str) -> None:
    """Refuse a name that files cannot have.

    Raises:
        ValueError: it is not of lower-case letters, digits and `-`.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"the name of a table or figure must be lower-case letters, digits and '-', got {name!r}")


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex_line(cells: Iterable[str]) -> str:
    line = rf"{' & '.join(cells)} \\"
    return f"{{}}{line}" if line.startswith(("[", "*")) else line  # else an option of the command of the line before
