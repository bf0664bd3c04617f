"""Notes of runs in MLflow: what came of a run, how it was asked for, and where its report is."""

import shlex
import sys
from pathlib import Path

import pytest
from invented.ablations import ODD, STRONG, made_ablation
from invented.searches import made_search, made_training

from harness.reporting.records import ablation_note, differences_to, search_note
from harness.reporting.results import read_results
from harness.tracking.limits import TAG_LENGTH
from harness.tracking.run_logger import FILES, HERE
from harness.trials import Trial

COMMAND = ["s4", "tune", "--set", "data.root=/my data"]


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/s4", *COMMAND[1:]])


def test_the_note_of_a_search_says_its_result_its_best_trials_its_command_and_its_report(tmp_path: Path) -> None:
    note = search_note(read_results(made_search(tmp_path / "first")), report=True)
    assert note.startswith("Trial 1 is the best with dev/miou 0.6250 at step 120; the published baseline 0.5000")
    assert "| **1** | **0.6250** |" in note
    assert "lambda_u" in note
    assert f"\n\n    {shlex.join(COMMAND)}\n\n" in note
    assert f"[the report]({HERE}/artifacts/report/report.html)" in note


def test_a_note_without_a_report_says_how_to_get_one(tmp_path: Path) -> None:
    note = search_note(read_results(made_training(tmp_path / "digits")), report=False)
    assert note.startswith("The training reached dev/miou")
    assert "`s4 report digits` writes a report" in note


def test_the_note_of_an_ablation_has_a_row_a_variant_with_difference_interval_and_verdict(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "made")
    note = ablation_note(ablation, report=True, figure="forest.png")
    versus = ablation.compare("val/miou")[STRONG]
    [row] = [line for line in note.splitlines() if line.startswith(f"| {STRONG} ")]
    for words in (f"{versus.difference:+.4f}", f"{versus.ci_low:+.4f}, {versus.ci_high:+.4f}", "better"):
        assert words in row
    assert f"![differences to the base]({FILES}forest.png)" in note


def test_a_note_that_has_no_room_for_its_table_keeps_its_sentence_its_command_and_its_links(tmp_path: Path) -> None:
    variants = "".join(f"  variant_{number:03d}: {{loss.lambda_u: {number / 1000}}}\n" for number in range(1, 150))
    from invented.ablations import made_request

    plan = f"name: many\nsource: nowhere\nvariants:\n  plain: {{}}\n{variants}"
    ablation = made_ablation(tmp_path / "many", missing=[(f"variant_{number:03d}", 0) for number in range(1, 150)],
                             request=made_request((0,), plan=plan))  # fmt: skip
    note = ablation_note(ablation, report=True)
    assert len(note) < TAG_LENGTH
    assert shlex.join(COMMAND) in note
    assert "report.html" in note
    assert ODD not in note


def test_a_trial_says_what_it_sets_otherwise_than_the_baseline() -> None:
    tags = differences_to({"loss.lambda_u": 1.0, "css.label_strategy": "mix", "css.radius": 2})
    note = tags(Trial(3, {}, {"loss.lambda_u": 1.63712, "css.label_strategy": "mix", "css.heads": 4}))
    assert note["mlflow.note.content"].splitlines()[2:] == ["- `loss.lambda_u` = 1.637 (baseline: 1)",
                                                            "- `css.heads` = 4"]  # fmt: skip
    assert tags(Trial(0, {}, {"loss.lambda_u": 1.0}))["mlflow.note.content"] == "The baseline."
