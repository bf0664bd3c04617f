"""How a start is shown: a waterfall in a terminal, a section of the report."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import rich.console
from invented.searches import made_search, made_training
from invented.starts import FIRST, LAST, SHARED, made_start

from harness.console import Console
from harness.ledger import LEDGER, Ledger, Times
from harness.reporting.document import Figure, Section, Table
from harness.reporting.record import read_record
from harness.reporting.reports import report_on, search_document, training_document
from harness.reporting.start import BAR, start_section, waterfall
from harness.session import show_start
from harness.start import Start

ONE, TWO = made_start(FIRST), made_start(FIRST, LAST)


def printed(start: Start, asked: bool = True, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(rich.console.Console(file=out, width=80, force_terminal=terminal, color_system=None), None)
    with show_start(start, console, asked):
        pass
    return out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("start", [ONE, TWO], ids=["one gang", "two gangs"])
def test_it_fits_80_columns_with_every_column(start: Start, terminal: bool) -> None:
    text = printed(start, terminal=terminal)
    assert "not shown" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_where_no_terminal_is_bars_are_plain() -> None:
    assert ("=" in printed(ONE), "━" in printed(ONE)) == (True, False)
    assert ("=" in printed(ONE, terminal=True), "━" in printed(ONE, terminal=True)) == (False, True)


def test_it_is_shown_where_it_was_asked_for_and_something_was_reported() -> None:
    assert printed(ONE).startswith("From the command to the first report in 31.0 s.\n")
    assert printed(ONE, asked=False) == printed(Start(SHARED)) == ""


def test_it_is_shown_of_a_session_that_was_interrupted_too() -> None:
    out = io.StringIO()
    console = Console(rich.console.Console(file=out, width=80), None)
    with pytest.raises(KeyboardInterrupt), show_start(ONE, console, asked=True):
        raise KeyboardInterrupt
    assert "warm-up" in out.getvalue()


def test_bars_stand_where_their_stages_were() -> None:
    for words, began, took, bar in waterfall(ONE, "=").rows:
        if began != "":
            assert len(str(bar)) - len(str(bar).lstrip()) == pytest.approx(BAR * float(began) / 31.0, abs=1.0), words
            assert str(bar).count("=") == pytest.approx(BAR * float(took) / 31.0, abs=1.0), words
            assert len(str(bar)) <= BAR, words


def test_two_gangs_are_named_and_one_is_not() -> None:
    titles = [row[0] for row in waterfall(TWO, "=").rows if row[1] == ""]
    assert titles == ["driver and gang 0, the first:", "meanwhile:", "gang 1, the last:"]
    assert [row[0] for row in waterfall(ONE, "=").rows if row[1] == ""] == ["meanwhile:"]


def blocks_of(starts: dict[int, Start]) -> list[object]:
    section = start_section(Times(starts=starts))
    assert section is not None
    return list(section.blocks)


def test_the_section_draws_the_last_start_that_had_a_report_with_its_numbers() -> None:
    [figure] = [block for block in blocks_of({0: ONE, 2: Start(SHARED)}) if isinstance(block, Figure)]
    assert [row[1] for row in figure.data.rows if row[0] != "meanwhile"] == [stage.name for stage in ONE.stages()]
    assert "the longest is Ray started or joined, 7 s." in figure.alt


def test_the_section_of_a_resumed_run_lists_each_start() -> None:
    later = Start({"began": 900.0, "ray": 912.0, "told": 920.0}, {0: {"report": 919.0}})
    [table] = [block for block in blocks_of({0: ONE, 2: later}) if isinstance(block, Table)]
    assert table.rows == [[1, 31.0, "Ray started or joined", 7.0], [3, 20.0, "Ray started or joined", 12.0]]


def sections(folder: Path) -> list[Section]:
    record = read_record(folder)
    document = search_document(record) if record.results.kind == "search" else training_document(record)
    return [section for section in document.sections if section.title == "Start"]


@pytest.mark.parametrize("made", [made_search, made_training])
def test_a_report_has_the_section_where_the_ledger_tells_of_a_start(tmp_path: Path, made: object) -> None:
    assert callable(made)
    folder = made(tmp_path / "s")
    assert sections(folder) == []
    ledger = Ledger(folder / LEDGER, "dev/miou")
    ledger.started(TWO)
    ledger.close()
    [section] = sections(folder)
    assert [type(block) for block in section.blocks] == [Figure]


def test_a_report_on_the_disk_shows_the_start(tmp_path: Path) -> None:
    folder = made_training(tmp_path / "t")
    ledger = Ledger(folder / LEDGER, "dev/miou")
    ledger.started(TWO)
    ledger.close()
    names = {path.name for path in report_on(folder)}
    assert {"start-light.png", "start-dark.png", "start.csv"} <= names
    assert "## Start" in (folder / "report" / "report.md").read_text()
