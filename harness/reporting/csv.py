"""Tables and the numbers of figures as CSV: full precision, empty where there is no value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.reporting.document import Cell, Data, Table


def table_csv(table: Table) -> str:
    """Return all rows of a table, under the names of its columns, or the exact numbers that it was made from."""
    if table.exact is not None:
        return data_csv(table.exact)
    return _lines([column.name or column.title for column in table.columns], table.rows)


def data_csv(data: Data) -> str:
    """Return the numbers of a figure."""
    return _lines(data.columns, data.rows)


def _lines(titles: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue()
