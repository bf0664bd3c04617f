"""What a report is made of, before it is HTML, Markdown, CSV or LaTeX: sections of plain blocks.

Texts are plain, with `code` between backticks. Every table and every figure has a name, which is that of its files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from harness.reporting.themes import Theme

Cell = float | int | str | bool | None
"""A value in a table; None where there is none."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
NOTHING = "–"  # noqa: RUF001  # an en dash is what typographers put into an empty cell


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    """For people."""
    name: str = ""
    """In CSV, where it must be found again; the title where it is empty."""
    form: str = ""
    """How numbers are written, as in `format`; empty: with four digits."""

    def text(self, cell: Cell) -> str:
        """Return a cell of the column for people."""
        if cell is None:
            return NOTHING
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        if isinstance(cell, str):
            return cell
        return format(cell, self.form) if self.form else f"{cell:.4g}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class Table:
    """A table: in the page, as `tables/NAME.csv` with full precision, and as `tables/NAME.tex`.

    Raises:
        ValueError: the name is no file's name, or a row has not a cell a column.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    strong: frozenset[int] = frozenset()
    """Indices of rows that stand out."""
    bold: frozenset[tuple[int, int]] = frozenset()
    """Row and column of single cells that stand out."""
    shown: int = 50
    """Rows that pages show; the CSV holds all."""
    exact: Data | None = None
    """What the CSV holds instead, where cells put several numbers together: `0.61 ± 0.02`."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {self.name} must have {len(self.columns)} cells, got {len(row)}: {row}")

    @property
    def left_out(self) -> int:
        """Rows that pages do not show."""
        return max(0, len(self.rows) - self.shown)

    def numeric(self, column: int) -> bool:
        """Return whether a column holds numbers, which stand to the right."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)


@dataclass(frozen=True)
class Data:
    """The numbers that a figure shows, for `figures/NAME.csv`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn once a theme: `figures/NAME-light.png` and `-dark.png`.

    Raises:
        ValueError: the name is no file's name, or the figure has no words for those who do not see it.
    """

    name: str
    caption: str
    alt: str
    """What is to be seen, for those who do not see it."""
    draw: Callable[[Any, Theme], None]
    """Draws into an empty figure of matplotlib."""
    data: Data
    size: tuple[float, float] = (7.6, 3.9)
    """Width and height in inches; text is 9 points high."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not self.alt.strip():
            raise ValueError(f"figure {self.name} must have an alternative text, it is empty: say what is to be seen")


@dataclass(frozen=True)
class Picture:
    """A PNG that exists already and looks the same in both themes."""

    name: str
    caption: str
    alt: str
    path: Path

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Note:
    """A paragraph that must not be passed over."""

    text: str
    kind: Literal["remark", "missing", "caution"] = "remark"
    """`missing`: something could not be shown; `caution`: a conclusion that must not be drawn."""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Commands:
    """Command lines, and what each does."""

    rows: Sequence[tuple[str, str]]


Block = Text | Note | Facts | Commands | Table | Figure | Picture


@dataclass(frozen=True)
class Section:
    """A part of a report with a title of its own."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report.

    Raises:
        ValueError: two tables, or two pictures, have the same name.
    """

    title: str
    kind: str
    """What is reported on, in a word or two: `search`, `training`."""
    lead: str
    """The result in a sentence."""
    sections: Sequence[Section]

    def __post_init__(self) -> None:
        pictures = [figure.name for figure in self.figures] + [picture.name for picture in self.pictures]
        for names in ([table.name for table in self.tables], pictures):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"names in a report must be different, got twice: {', '.join(twice)}")

    @property
    def tables(self) -> list[Table]:
        """All tables, in order."""
        return [block for block in self._blocks() if isinstance(block, Table)]

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [block for block in self._blocks() if isinstance(block, Figure)]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in order."""
        return [block for block in self._blocks() if isinstance(block, Picture)]

    def _blocks(self) -> Iterator[Block]:
        for section in self.sections:
            yield from section.blocks


def spans(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the pieces of a text, and whether each is code; a backtick without its partner is text."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        pieces[-2:] = ["`".join(pieces[-2:])]
    for index, piece in enumerate(pieces):
        if piece:
            yield index % 2 == 1, piece


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"the name of a table or figure must be lower-case letters, digits and '-', got {name!r}")
