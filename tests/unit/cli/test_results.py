"""The table of results: its order, its forms, and what is read back."""

import csv
import io
import json
from pathlib import Path

import pytest

from harness.cli.main import run
from harness.reporting.results import (
    Collector,
    Results,
    read_results,
    summary,
    to_markdown,
    to_table,
    write_results,
)
from harness.tables import table_csv
from harness.trials import Trial, TrialState

PATHS = ("loss.lambda_u", "css.label_strategy", "css.cross_warmup")


def trial(number: int, state: TrialState, value: float | None, **overrides: object) -> Trial:
    made = Trial(number, {}, {path.replace("__", "."): it for path, it in overrides.items()}, config_hash=f"h{number}")
    if value is not None:
        made.metrics = {"step": 600 if state is TrialState.COMPLETE else 60, "dev/miou": value}
        made.best = {"value": value, "step": 60}
    made.state = state
    made.error = "Traceback\nDivergedError: nan | inf" if state is TrialState.FAIL else None
    return made


def cells(results: Results) -> list[list[str]]:
    """The cells as people see them."""
    return [*to_table(results).texts("-")]


@pytest.fixture
def results() -> Results:
    collector = Collector()
    for one in [
        trial(0, TrialState.COMPLETE, 0.5, loss__lambda_u=1.0, css__label_strategy="mix"),
        trial(1, TrialState.PRUNED, 0.9, loss__lambda_u=0.123456, css__label_strategy="cross", css__cross_warmup=0.2),
        trial(2, TrialState.COMPLETE, 0.625, loss__lambda_u=2.0, css__label_strategy="logit"),
        trial(3, TrialState.FAIL, None, loss__lambda_u=3.0, css__label_strategy="mix"),
    ]:
        collector.on_start(one)
        for start_s, report_s in ((0.1, 0.002), (None, 0.004)):
            report = dict(one.metrics)
            one.metrics |= {"overhead/report_s": report_s} | ({"overhead/start_s": start_s} if start_s else {})
            collector.on_report(one)
            one.metrics = report
        collector.on_end(one)
    return Results(
        name="s-001", kind="search", preset="digits_css", space="css", metric="dev/miou", horizon=600, elapsed_s=12.3,
        tracking_uri="sqlite:///x.db", paths=PATHS, rows=collector.rows(PATHS),
    )  # fmt: skip


def test_trials_at_the_full_horizon_come_first_and_failures_have_no_rank(results: Results) -> None:
    assert [line[:2] for line in cells(results)] == [["1", "2"], ["2", "0 (baseline)"], ["3", "1"], ["-", "3"]]
    assert results.best is not None
    assert results.best.number == 2


def test_values_that_a_trial_does_not_have_are_a_dash(results: Results) -> None:
    assert cells(results)[2][-3:] == ["0.1235", "cross", "0.2"]
    assert cells(results)[0][-1] == "-"
    assert cells(results)[3][2:4] == ["-", "-"]


def test_the_summary_compares_with_the_baseline_and_names_failures(results: Results) -> None:
    assert summary(results) == [
        "4 trials (2 complete, 1 pruned, 1 failed) in 12 s",
        "best: trial 2, dev/miou 0.6250 at step 60; the published baseline 0.5000 (+0.1250), one seed each",
        "overhead (medians): 100 ms from a trial's submission to the end of its first step, 3 ms a report",
        "trial 3 failed: DivergedError: nan | inf",
    ]


def test_csv_keeps_full_precision_under_whole_paths(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(to_table(results)))))
    assert rows[2]["loss.lambda_u"] == "0.123456"
    assert (rows[3]["rank"], rows[3]["dev/miou"], rows[3]["css.cross_warmup"]) == ("", "", "")
    assert rows[3]["error"] == "DivergedError: nan | inf"


def test_markdown_is_a_table_of_equal_width(results: Results) -> None:
    lines = [line for line in to_markdown(results).splitlines() if line.startswith("|")]
    assert len(lines) == 6
    assert {line.count("|") for line in lines} == {10}


def test_what_was_written_is_read_back(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path, results)
    assert table_csv(to_table(read_results(tmp_path))) == table_csv(to_table(results))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.json", "results.md"]


def test_a_search_without_trials_has_results_too(tmp_path: Path) -> None:
    empty = Results("s", "search", "p", "css", "dev/miou", 600, 0.0, "sqlite:///x.db", (), ())
    write_results(tmp_path, empty)
    assert summary(read_results(tmp_path)) == ["0 trials in 0 s"]


def test_report_shows_the_table_again(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path / "s-001", results)
    assert run(["report", "s-001", "--storage", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "0 (baseline)" in out
    assert "lambda_u" in out
    assert "best: trial 2" in out


def test_json_is_one_object_on_stdout_and_words_are_on_stderr(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path / "s-001", results)
    assert run(["report", "s-001", "--storage", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert (data["best"]["number"], data["counts"]) == (2, {"COMPLETE": 2, "PRUNED": 1, "FAIL": 1})
    assert "best: trial 2" in captured.err
