"""LaTeX tables of whole reports hold to the grammar that pdflatex needs, since no TeX is there to compile them."""

import re
from pathlib import Path

import pytest
from invented.ablations import made_ablation
from invented.searches import made_search, made_training

from harness.reporting.ablation.record import read_ablation
from harness.reporting.ablation.report import ablation_document
from harness.reporting.document import Document
from harness.reporting.record import read_record
from harness.reporting.reports import search_document, training_document
from harness.tables import Table, table_latex

ESCAPED = re.compile(r"\\[&%$#_{}\\]")
"""A special character as text, or the end of a line."""


def tables(folder: Path) -> list[Table]:
    made_ablation(folder / "a", failed=[("plain", 1)])
    documents: list[Document] = [
        search_document(read_record(made_search(folder / "s"))),
        training_document(read_record(made_training(folder / "t"))),
        ablation_document(read_ablation(folder / "a"), folder / "a"),
    ]
    return [table for document in documents for table in document.tables]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Table, str]]:
    return [(table, table_latex(table)) for table in tables(tmp_path_factory.mktemp("runs"))]


def test_braces_and_formulas_are_closed(written: list[tuple[Table, str]]) -> None:
    for table, text in written:
        plain, depth = ESCAPED.sub("", text), 0
        for letter in plain:
            depth += (letter == "{") - (letter == "}")
            assert depth >= 0, table.name
        assert depth == 0, table.name
        assert plain.count("$") % 2 == 0, table.name


def test_no_comment_hides_a_rest_and_no_subscript_stands_outside_of_a_formula(
    written: list[tuple[Table, str]],
) -> None:
    for table, text in written:
        assert not set(ESCAPED.sub("", text)) & set("%#_^~"), table.name


def test_every_row_has_a_cell_a_column(written: list[tuple[Table, str]]) -> None:
    for table, text in written:
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 1 + min(len(table.rows), table.shown), table.name
        assert {ESCAPED.sub("", row).count("&") for row in rows} == {len(table.columns) - 1}, table.name


def test_letters_are_those_that_any_engine_reads(written: list[tuple[Table, str]]) -> None:
    for table, text in written:
        assert text.isascii(), table.name
