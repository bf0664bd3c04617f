"""Tables of numbers in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def numbers_table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    """Return a table whose cells stand to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table
