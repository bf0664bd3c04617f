"""The report of a search: what it says, what it leaves in the folder, and that it does so whatever is missing."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from invented.searches import FAIL, METRIC, PRUNED, SEARCH, SECOND, Course, made_search

from harness.cli.main import run
from harness.ledger import LEDGER
from harness.reporting.document import Document, Note, Table
from harness.reporting.figures import png
from harness.reporting.pruning import rung_steps
from harness.reporting.record import read_record
from harness.reporting.reports import report_on, search_document
from harness.reporting.results import read_results
from harness.reporting.themes import LIGHT
from harness.run_folder import RUN
from harness.trials import TrialState


def document_of(folder: Path) -> Document:
    return search_document(read_record(folder))


def paint(document: Document) -> None:
    """Draw every figure, in one theme."""
    for figure in document.figures:
        assert png(figure.draw, LIGHT, figure.size).startswith(b"\x89PNG")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(document: Document, name: str) -> Table:
    [found] = [one for one in document.tables if one.name == name]
    return found


def notes(document: Document, kind: str | None = None) -> str:
    found = [block for section in document.sections for block in section.blocks if isinstance(block, Note)]
    return "\n".join(note.text for note in found if kind in (None, note.kind))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_search(tmp_path_factory.mktemp("runs") / "made-up")
    report_on(folder)
    return folder / "report"


def test_every_figure_is_there_in_both_themes_with_its_numbers(written: Path) -> None:
    names = {figure.name for figure in document_of(written.parent).figures}
    assert names >= {"history", "learning-curves", "parallel-coordinates", "slices", "rank-correlation", "timeline"}
    files = {path.name for path in (written / "figures").iterdir()}
    assert files == {name + end for name in names for end in ("-light.png", "-dark.png", ".csv")}


def test_every_table_is_there_as_csv_and_latex(written: Path) -> None:
    names = {one.name for one in document_of(written.parent).tables}
    assert names == {"settings", "leaderboard", "rungs", "faults"}
    assert {path.name for path in (written / "tables").iterdir()} == {
        name + end for name in names for end in (".csv", ".tex")
    }


def test_pictures_of_the_two_themes_differ(written: Path) -> None:
    for light in (written / "figures").glob("*-light.png"):
        assert light.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert light.read_bytes() != light.with_name(light.name.replace("-light", "-dark")).read_bytes()


def test_the_leaderboard_holds_the_results(written: Path) -> None:
    results = read_results(written.parent)
    rows = rows_of(written / "tables" / "leaderboard.csv")
    assert [row["trial"].split()[0] for row in rows] == [str(row.number) for row in results.rows]
    assert [float(row[METRIC]) for row in rows] == [row.best for row in results.rows]
    assert [float(row["loss.lambda_u"]) for row in rows] == [row.values["loss.lambda_u"] for row in results.rows]


def test_figures_keep_the_values_of_all_reports(written: Path) -> None:
    rows = rows_of(written / "figures" / "learning-curves.csv")
    found = [(int(row["trial"]), int(row["step"]), float(row["value"])) for row in rows]
    assert found == [(number, 20 * (index + 1), value)
                     for number, course in enumerate(SEARCH) for index, value in enumerate(course.values)]  # fmt: skip


def test_the_lead_compares_with_the_baseline_and_a_note_says_what_that_is_worth(written: Path) -> None:
    document = document_of(written.parent)
    assert document.lead == (
        "Trial 1 is the best with dev/miou 0.6250 at step 120; the published baseline 0.5000 (+0.1250)."
    )
    assert "`s4 confirm made-up" in notes(document, "caution")


def test_rungs_tell_who_arrived_and_who_was_stopped(written: Path) -> None:
    rungs = table(document_of(written.parent), "rungs")
    titles = [column.title for column in rungs.columns]
    rows = [dict(zip(titles, row, strict=True)) for row in rungs.rows]
    assert [(row["step"], row["arrived"], row["stopped"], row["went on"]) for row in rows] == [
        (20, 6, 1, 4), (60, 4, 1, 3),
    ]  # fmt: skip
    assert rows[0]["worst that went on"] == 0.09


def test_the_order_at_a_rung_is_compared_with_the_final_one(written: Path) -> None:
    rungs = table(document_of(written.parent), "rungs")
    [tau] = [row[[column.title for column in rungs.columns].index("tau")] for row in rungs.rows if row[0] == 20]
    assert tau == pytest.approx(1.0)  # 0.10 < 0.11 < 0.12, and 0.50 < 0.56 < 0.625


def test_failures_are_listed_with_the_last_line_of_their_reason(written: Path) -> None:
    assert table(document_of(written.parent), "faults").rows == [
        (5, "FAIL", 20, "DivergedError: loss is nan | at step 31 <b>")
    ]


def test_a_search_whose_driver_was_killed_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    courses = [*SEARCH[:3], Course(TrialState.RUNNING, (0.2, 0.3))]
    folder = made_search(tmp_path / "s", courses, ended=False)
    document = document_of(folder)
    assert "Not all trials are over" in notes(document)
    assert [row[5] for row in table(document, "leaderboard").rows] == ["COMPLETE", "COMPLETE", "PRUNED", "INTERRUPTED"]
    paint(document)


def test_a_search_with_a_single_trial_has_a_report(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s", SEARCH[:1])
    document = document_of(folder)
    assert document.lead == "Nothing beat the published baseline: trial 0 is the best with dev/miou 0.5000 at step 120."
    assert "Early values tell nothing of the final order yet: that takes 3 complete trials, got 1." in notes(document)
    paint(document)


def test_a_search_whose_trials_all_failed_has_a_report(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s", [Course(FAIL, (), "OutOfMemoryError: 80 GiB"), Course(FAIL, (), "the same")])
    document = document_of(folder)
    assert document.lead == "No trial reached the horizon of 120 steps yet; 2 were begun."
    assert "No trial has reported a value" in notes(document, "missing")
    paint(document)


def test_values_that_are_not_numbers_are_left_out_of_figures(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s", [*SEARCH[:3], Course(FAIL, (0.1, float("nan")), "DivergedError")])
    paint(document_of(folder))


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s", SEARCH, objectives=[METRIC, f"{SECOND}:min"], scheduler="none")
    document = document_of(folder)
    paint(document)
    assert table(document, "front").rows == [[1, 0.625, 0.19], [3, 0.56, 0.17]]
    assert "front" in {figure.name for figure in document.figures}


def test_three_objectives_have_a_figure_for_each_besides_the_first(tmp_path: Path) -> None:
    courses = [replace(course, more={"memory/peak_gib": float(index)}) for index, course in enumerate(SEARCH)]
    folder = made_search(tmp_path / "s", courses, objectives=[METRIC, f"{SECOND}:min", "memory/peak_gib:min"])
    assert {figure.name for figure in document_of(folder).figures} >= {"front-1", "front-2"}


def test_less_can_be_better(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s", SEARCH, objectives=[f"{METRIC}:min"])
    assert document_of(folder).lead.startswith("Nothing beat the published baseline: trial 0 is the best with "
                                               "dev/miou 0.1000")  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (LEDGER, "There is no ledger"),
        (RUN, "What was asked for is not known"),
    ],
)
def test_what_is_missing_is_said(lost: str, said: str, tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s")
    (folder / lost).unlink()
    document = document_of(folder)
    assert said in notes(document, "missing")
    paint(document)


def test_times_that_nobody_wrote_down_are_missing(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s")
    events = [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()]
    without = [{name: value for name, value in event.items() if name != "time"} for event in events]
    (folder / LEDGER).write_text("".join(f"{json.dumps(event)}\n" for event in without))
    assert "holds no times" in notes(document_of(folder), "missing")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s")
    (folder / LEDGER).write_text('{"something": "else"}\n')
    (folder / "results.json").touch()  # newer than the ledger
    assert "The ledger cannot be read" in notes(document_of(folder), "missing")


def test_half_a_line_of_a_driver_at_work_is_passed_over(tmp_path: Path) -> None:
    folder = made_search(tmp_path / "s", ended=False)
    with (folder / LEDGER).open("a", encoding="utf-8") as file:
        file.write('{"event":"rep')
    assert "cannot be read" not in notes(document_of(folder))


def test_the_time_between_two_sessions_is_left_out(tmp_path: Path) -> None:
    times = read_record(made_search(tmp_path / "s", sessions=2)).times
    assert times.sessions == [0.0, pytest.approx(19.0)]  # the first session's last operation
    assert max(span.end_s for span in times.spans) < 60


def test_rungs_are_those_of_asha_and_steps_where_trials_were_stopped(tmp_path: Path) -> None:
    courses = [*SEARCH, Course(PRUNED, (0.1, 0.1), "collapsed")]
    assert rung_steps(read_record(made_search(tmp_path / "asha", courses))) == [20, 40, 60]
    assert rung_steps(read_record(made_search(tmp_path / "median", SEARCH, scheduler="median"))) == [20, 60]
    assert rung_steps(read_record(made_search(tmp_path / "none", SEARCH[:2], scheduler="none"))) == []


def test_s4_report_writes_it_and_names_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_search(tmp_path / "s")
    assert run(["report", "s", "--storage", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    page = folder / "report" / "report.html"
    assert json.loads(captured.out)["report"] == str(page)
    assert f"report: {page}" in captured.err
    assert page.exists()


def test_s4_report_says_in_one_line_that_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_search(tmp_path / "s")

    def readonly(folder: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("harness.reporting.reports.report_on", readonly)
    assert run(["report", "s", "--storage", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "best: trial 1" in captured.out
    assert "failed: the report cannot be written" in captured.err
