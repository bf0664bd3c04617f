"""Tables as CSV, Markdown, LaTeX and in a terminal: whole, exact where they can be, and escaped."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.tables import (
    Column,
    Data,
    Table,
    latex_number,
    markdown_inline,
    markdown_text,
    spans,
    table_csv,
    table_latex,
    table_markdown,
    table_terminal,
)

NASTY = "a<b> & \"c\" | $d_e% {f} ~g^ \\h #i *j* [k](l) 'm' <script>alert(1)</script>"
EXACT = Data(["variant", "difference", "low", "high"], [["a", -0.0123456789, -0.5, 0.25]])
TABLE = Table("t", "Caption.", [Column("variant"), Column("difference")], [["a", "-0.0123 [-0.5000, +0.2500]"]],
              bold=frozenset({(0, 1)}), exact=EXACT)  # fmt: skip


def some_table(shown: int = 50) -> Table:
    columns = [Column("name"), Column("short", name="a.long.path", form=".2f"), Column("flag"), Column("n")]
    rows = [[NASTY, 0.123456789, True, 3], ["b", None, False, None], ["c", -1.5, True, 12]]
    return Table("some-table", f"Caption with `code_1` and {NASTY}", columns, rows, frozenset({1}), shown=shown)


def test_the_csv_holds_the_exact_numbers() -> None:
    assert table_csv(TABLE) == "variant,difference,low,high\na,-0.0123456789,-0.5,0.25\n"


def test_csv_has_full_precision_under_full_names() -> None:
    rows = list(csv.reader(io.StringIO(table_csv(some_table()))))
    assert rows[0] == ["name", "a.long.path", "flag", "n"]
    assert rows[1] == [NASTY, "0.123456789", "True", "3"]
    assert rows[2] == ["b", "", "False", ""]


FORMULAS = [
    "=1+1",
    '=HYPERLINK("http://x")',
    "+cmd|' /C calc'!A0",
    "-2+cmd",
    "@SUM(A1)",
    "\t=1",
    "+ contrast",
    "-",
]
NO_FORMULAS = ["-0.5", "+0.25", "-1e-05", "-0.0123 [-0.5000, +0.2500]", "a=b", "", "a", "1.0"]


@pytest.mark.parametrize("text", [*FORMULAS, *NO_FORMULAS])
def test_no_text_of_a_csv_is_a_formula_and_numbers_stay_numbers(text: str) -> None:
    table = Table("t", "", [Column(text)], [[text], [-0.5]])
    title, cell, number = (row[0] for row in csv.reader(io.StringIO(table_csv(table), newline="")))
    assert title == cell == (f"'{text}" if text in FORMULAS else text)
    assert number == "-0.5"


def test_no_text_of_a_csv_ends_its_line() -> None:
    text = table_csv(Table("t", "", [Column("a")], [["b\r=1"], ["c\n=1"]]))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a"], ["b =1"], ["c\n=1"]]


@pytest.mark.parametrize("text", ["[2em]", "*"])
def test_the_first_cell_is_no_option_of_the_line_before(text: str) -> None:
    lines = table_latex(Table("t", "", [Column(text)], [[text], [text]])).splitlines()
    assert [line for line in lines if text in line] == [rf"{{}}{text} \\"] * 3


def test_code_of_several_lines_stays_code_in_markdown() -> None:
    assert markdown_inline("a `b\n\n<script>` c") == "a `b <script>` c"


def test_latex_has_booktabs_rules_and_as_many_cells_a_row_as_columns() -> None:
    text = table_latex(some_table())
    lines = text.splitlines()
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"\begin{tabular}{lrlr}" in lines
    assert all(len(re.findall(r"(?<!\\)&", line)) == 3 for line in lines if line.endswith(r"\\"))
    assert [re.findall(r"\\(begin|end)\{(\w+)\}", line)[0] for line in lines if re.match(r"\\(begin|end)", line)] == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table"),
    ]  # fmt: skip


def test_latex_prints_a_minus_and_dashes_where_nothing_is() -> None:
    text = table_latex(some_table())
    assert "$-$1.50" in text
    assert r"\textbf{b} & \textbf{--} & \textbf{no} & \textbf{--} \\" in text


@given(st.text())
def test_latex_leaves_no_special_character_alone(given_text: str) -> None:
    body = table_latex(Table("t", "c", [Column("a")], [[given_text + "x"]])).split("\\midrule\n")[1].split(" \\\\\n")[0]
    body = body.removeprefix("{}")
    known = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$(-|\\pm|\\geq|\\leq)\$", "", body)
    assert not re.search(r"[\\&%$#_{}~^]", known)


@given(st.text(), st.text())
def test_markdown_rows_have_as_many_cells_as_columns(one: str, other: str) -> None:
    table = Table("t", "c", [Column("a"), Column("b")], [[one, other]])
    rows = [line for line in table_markdown(table).split("\n\n", 1)[1].split("\n") if line]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3 for row in rows)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a `b` c", [(False, "a "), (True, "b"), (False, " c")]),
        ("`b`", [(True, "b")]),
        ("it`s", [(False, "it`s")]),
        ("", []),
    ],
)
def test_code_stands_between_two_backticks(text: str, pieces: list[tuple[bool, str]]) -> None:
    assert list(spans(text)) == pieces


@pytest.mark.parametrize("name", ["", "With Spaces", "../up", "under_score", "-dash"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be lower-case letters"):
        Table(name, "", [], [])


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="must have 1 cells, got 2"):
        Table("t", "", [Column("a")], [[1, 2]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-0.5", "$-$0.5"),
        ("1e-05", "1e-05"),
        ("-1e-05", "$-$1e-05"),
        ("0.61 ± 0.02", r"0.61 $\pm$ 0.02"),
        ("lr=-1", "lr=-1"),
        ("2026-11-25 run", "2026-11-25 run"),
        ("-", "-"),
    ],
)
def test_only_signs_of_numbers_become_minuses(text: str, expected: str) -> None:
    assert latex_number(text) == expected


def terminal(table: Table, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(table_terminal(table, width)[0])
    return capture.get()


def plain(text: str) -> list[str]:
    lines = (re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def test_a_terminal_shows_numbers_to_the_right_and_texts_as_they_are() -> None:
    table = Table("t", "", [Column("name"), Column("value", form=".2f")], [["a [b]", -1.5], ["c", None], ["long", 10]])
    assert plain(terminal(table)) == [
        "name    value", "─────────────", "a [b]   -1.50", "c           -", "long    10.00",
    ]  # fmt: skip


def test_a_terminal_shows_all_rows_that_stand_out_in_their_styles() -> None:
    rows = [["best"], ["failed"], ["else"]]
    table = Table("t", "", [Column("a")], rows, frozenset({0}), shown=1, styles={1: "red"}, gaps=frozenset({2}))
    text = terminal(table)
    assert "\x1b[1;32mbest" in text
    assert "\x1b[31mfailed" in text
    assert [line.strip() for line in text.splitlines()[-5:]][1:4] == ["\x1b[31mfailed\x1b[0m", "", "else"]


def test_a_table_without_titles_has_no_head_in_a_terminal() -> None:
    assert plain(terminal(Table("t", "", [Column(""), Column("")], [["a", "b"]]))) == ["a   b"]


def test_a_narrow_terminal_folds_words_and_loses_none() -> None:
    text = "".join(plain(terminal(Table("t", "", [Column("a")], [["x" * 50]]), width=20)))
    assert text.count("x") == 50


@pytest.mark.parametrize(
    ("text", "shown"), [("a.b_c", "a.b_c"), ("_a_", r"\_a\_"), ("a_", r"a\_"), ("a__b", r"a\_\_b")]
)
def test_markdown_leaves_underscores_within_words_alone(text: str, shown: str) -> None:
    assert markdown_text(text) == shown
