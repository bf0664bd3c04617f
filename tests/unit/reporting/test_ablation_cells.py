"""Cells that hold several numbers: how each format writes, sorts and marks them, and what the CSV holds instead."""

import pytest

from harness.reporting.html import table_html
from harness.tables import Column, Data, Table, table_latex, table_markdown

EXACT = Data(["variant", "difference", "low", "high"], [["a", -0.0123456789, -0.5, 0.25]])
TABLE = Table("t", "Caption.", [Column("variant"), Column("difference")], [["a", "-0.0123 [-0.5000, +0.2500]"]],
              bold=frozenset({(0, 1)}), exact=EXACT)  # fmt: skip


def test_a_single_cell_is_bold_in_every_format() -> None:
    assert r"a & \textbf{$-$0.0123 [$-$0.5000, +0.2500]} \\" in table_latex(TABLE)
    assert r"| a | **-0.0123 \[-0.5000, +0.2500\]** |" in table_markdown(TABLE)
    assert '<td>a</td><td class="strong" data-value="-0.0123">' in table_html(TABLE)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("0.6100 ± 0.0200", "0.61"), ("+0.0100 [-0.1, +0.2]", "0.01"), ("-3 [-4, -2]", "-3.0")],
)
def test_cells_that_begin_with_a_number_are_sorted_by_it(cell: str, value: str) -> None:
    page = table_html(Table("t", "C.", [Column("a")], [[cell]]))
    assert f'<td data-value="{value}">' in page


@pytest.mark.parametrize("cell", ["3 seeds", "a [1]", "+", "mix + 1 [x"])
def test_other_texts_are_sorted_as_texts(cell: str) -> None:
    assert "data-value" not in table_html(Table("t", "C.", [Column("a")], [[cell]]))
