"""Documents of sections and plain blocks, before they are HTML, Markdown, CSV or LaTeX.

Texts are plain, with `code` between backticks. Every table and every figure has a name, which is that of its files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.reporting.themes import Theme
from harness.tables import Cell, Column, Data, Table, check_name

__all__ = [
    "FOLDER", "PAGE", "Block", "Cell", "Column", "Commands", "Data", "Document", "Facts", "Figure", "Note", "Picture",
    "Section", "Table", "Text",
]  # fmt: skip
FOLDER, PAGE = "report", "report.html"
"""Of a report: its folder in that of what it reports on, and its page there."""


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn once a theme: `figures/NAME-light.png` and `-dark.png`.

    Raises:
        ValueError: the name is no file's name, or the figure has no words for those who do not see it.
    """

    name: str
    caption: str
    alt: str
    draw: Callable[[Any, Theme], None]
    """Draws into an empty figure of matplotlib."""
    data: Data
    size: tuple[float, float] = (7.6, 3.9)
    """Width and height in inches; text is 9 points high."""

    def __post_init__(self) -> None:
        check_name(self.name)
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
        check_name(self.name)


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

    @property
    def label(self) -> str:
        """The kind for people."""
        return {"remark": "Note", "missing": "Missing", "caution": "Caution"}[self.kind]


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
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]

    @property
    def anchors(self) -> list[str]:
        """Names of the sections in links; equal titles get numbers."""
        anchors: list[str] = []
        for section in self.sections:
            anchor = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
            anchors.append(anchor if anchor not in anchors else f"{anchor}-{len(anchors)}")
        return anchors
