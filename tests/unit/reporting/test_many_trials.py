"""Reports of many trials: figures and terminals show some and say which, files hold all."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from invented.searches import COMPLETE, Course, made_search

from harness.reporting import figures
from harness.reporting.figures import LINES, thinned
from harness.reporting.record import read_or_rebuild, read_record
from harness.reporting.reports import search_document
from harness.reporting.results import ERRORS, LISTED, Results, Row, summary, to_table
from harness.tables import table_terminal


def test_of_few_trials_all_are_drawn() -> None:
    assert thinned(range(LINES), {0}) == ({*range(LINES)}, "")


@pytest.mark.parametrize("count", [LINES + 1, 1000, 10_007])
def test_of_many_trials_the_best_the_baseline_and_an_even_sample_are_drawn(count: int) -> None:
    best_first = [*range(count - 1, -1, -1)]  # the baseline, trial 0, is the worst
    chosen, words = thinned(best_first, {0, 1})
    best = LINES // 3
    assert {*best_first[:best], best_first[-1], 0, 1} <= chosen
    assert len(chosen) <= LINES + 2
    places = sorted(best_first.index(number) for number in chosen - {1})[best - 1 :]
    gaps = {after - before for before, after in pairwise(places)}
    assert max(gaps) <= (count - best) / (LINES - best) + 2
    assert f"the best {best} of {count} trials" in words


def test_thinned_curves_say_so_and_their_numbers_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_search(tmp_path / "s", [Course(COMPLETE)] * 12)
    whole = {figure.name: figure for figure in search_document(read_record(folder)).figures}
    monkeypatch.setattr(figures, "LINES", 6)
    some = {figure.name: figure for figure in search_document(read_record(folder)).figures}
    for name in ("learning-curves", "parallel-coordinates"):
        assert "the best 2 of 12 trials and a sample of 4 others" in some[name].caption
        assert "sample" not in whole[name].caption
        assert some[name].data == whole[name].data


def many(count: int, state: str, error: str | None = None) -> Results:
    rows = [Row(number, state, 0.5, 1, 1, {}, "", error, None, None) for number in range(count)]
    return Results("s", "search", "p", "x", "dev/miou", 1, 1.0, "", (), rows)


def test_a_terminal_lists_200_trials_and_the_csv_all() -> None:
    table = to_table(many(LISTED + 50, "COMPLETE"))
    assert table_terminal(table, 100)[0].row_count == LISTED
    assert table.exact is not None
    assert len(table.exact.rows) == LISTED + 50


def test_a_summary_names_a_few_failures_and_counts_the_others() -> None:
    lines = summary(many(ERRORS + 7, "FAIL", "loss is nan"))
    assert sum("loss is nan" in line for line in lines) == ERRORS
    assert lines[-1] == "7 more failed or were stopped: results.csv"
    assert not any("more" in line for line in summary(many(ERRORS, "FAIL", "loss is nan")))


def test_s4_report_says_where_the_other_trials_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.console import make_console
    from harness.showing import show

    folder = made_search(tmp_path / "s")
    results = read_or_rebuild(folder)
    show(many(LISTED + 3, "COMPLETE"), folder, make_console(quiet=False))
    assert f"3 more trials: {folder / 'results.csv'}" in "".join(capsys.readouterr().out.splitlines())
    show(results, folder, make_console(quiet=False))
    assert "more trials" not in capsys.readouterr().out
