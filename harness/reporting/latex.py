r"""Tables of a report as LaTeX: `\input` them; the preamble needs `\usepackage{booktabs}`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.reporting.document import NOTHING, spans

if TYPE_CHECKING:
    from harness.reporting.document import Table

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", NOTHING: "--", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$",
}  # fmt: skip
NUMBERS = re.compile(r"[-+\d.e,;±\[\] ]*\d[-+\d.e,;±\[\] ]*")
"""Cells of numbers and what holds them together."""
SIGN = re.compile(r"(?<![\w.])-(?=[\d.])")
"""Before a number, and not of an exponent."""


def table_latex(table: Table) -> str:
    """Return a `table` with `booktabs` rules; numbers stand to the right, strong rows are bold."""
    letters = "".join("r" if table.numeric(index) else "l" for index in range(len(table.columns)))
    titles = [escape(column.title) for column in table.columns]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{inline(table.caption)}}}", rf"\label{{tab:{table.name}}}",
             rf"\begin{{tabular}}{{{letters}}}", r"\toprule", _line(titles), r"\midrule"]  # fmt: skip
    for index, row in enumerate(table.rows[: table.shown]):
        cells = [number(column.text(cell)) for column, cell in zip(table.columns, row, strict=True)]
        for column, cell in enumerate(cells):
            if index in table.strong or (index, column) in table.bold:
                cells[column] = rf"\textbf{{{cell}}}"
        lines.append(_line(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    """Return a text that LaTeX prints as it is, on one line."""
    return "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))


def inline(text: str) -> str:
    """Return a text with its code in a typewriter face."""
    pieces = []
    for code, piece in spans(" ".join(text.split())):
        plain = "".join(SPECIAL.get(letter, letter) for letter in piece)
        pieces.append(rf"\texttt{{{plain}}}" if code else plain)
    return "".join(pieces)


def number(text: str) -> str:
    """Return a cell; signs of numbers are minuses and not hyphens, also in `-0.01 [-0.03, +0.01]`."""
    return SIGN.sub("$-$", escape(text)) if NUMBERS.fullmatch(text) else escape(text)


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
