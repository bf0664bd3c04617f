"""Scores of anybody's trainings get the statistics and the report of an ablation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from scipy import stats

import harness
from harness.cli.main import run

PLAIN, BETTER = (0.512, 0.498, 0.521, 0.505), (0.541, 0.520, 0.561, 0.549)
CSV = "variant,seed,miou\n" + "".join(
    f"{variant},{seed},{score}\n"
    for variant, scores in (("plain", PLAIN), ("css", BETTER))
    for seed, score in enumerate(scores)
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_differences_are_those_of_the_paired_t_test(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.csv").write_text(CSV)
    assert run(["compare", "mine.csv", "--json"]) == 0
    _, row = json.loads(capsys.readouterr().out)["variants"]
    test = stats.ttest_rel(BETTER, PLAIN)
    interval = test.confidence_interval(0.95)
    expected = (test.pvalue, interval.low, interval.high)
    assert (row["p_t"], row["ci_low"], row["ci_high"]) == pytest.approx(expected)
    assert (row["variant"], row["verdict"], row["pairs"]) == ("css", "better", 4)


def test_the_base_is_the_first_variant_or_the_one_that_is_named() -> None:
    scores = {"plain": dict(enumerate(PLAIN)), "css": dict(enumerate(BETTER))}
    assert harness.compare(scores, quiet=True).others == ["css"]
    assert harness.compare(scores, base="css", quiet=True).others == ["plain"]


def test_the_report_is_a_page_with_the_verdict_and_what_was_read_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.csv").write_text(CSV.replace("css", "css <b>"))
    assert run(["compare", "mine.csv", "--out", "report"]) == 0
    page = Path("report/report.html").read_text()
    assert "css &lt;b&gt; (+0.0338) is better than plain in miou, over 4 paired seeds" in page
    assert "images" not in page.partition("Differences and their noise")[0]


def test_a_folder_of_something_else_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.csv").write_text(CSV)
    Path("kept").mkdir()
    assert run(["compare", "mine.csv", "--out", "kept"]) == 2
    assert list(Path("kept").iterdir()) == []


def test_finished_runs_of_an_experiment_are_compared(
    tmp_path: Path, new_store: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    uri = new_store(tmp_path)
    client = MlflowClient(uri)
    experiment = client.create_experiment("theirs", artifact_location=str(tmp_path / "artifacts"))
    for number, (variant, seed) in enumerate((variant, seed) for variant in ("plain", "css") for seed in range(4)):
        made = client.create_run(experiment).info.run_id
        client.log_param(made, "kind", variant)
        client.set_tag(made, "seed", str(seed))
        client.log_metric(made, "iou", {"plain": PLAIN, "css": BETTER}[variant][seed])
        client.set_terminated(made, "FAILED" if number == 7 else "FINISHED")
    words = ["compare", "--experiment", "theirs", "--metric", "iou", "--variant", "kind", "--tracking-uri", uri]
    assert run([*words, "--base", "plain", "--json"]) == 0
    _, row = sorted(json.loads(capsys.readouterr().out)["variants"], key=lambda row: row["variant"] != "plain")
    assert (row["scores"], row["pairs"]) == ({str(seed): score for seed, score in enumerate(BETTER[:3])}, 3)


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (["mine.csv", "--base", "nix"], CSV, "--base must be one of the variants (plain, css), got 'nix'"),
        (["mine.csv"], "a,b\n1,2\n", "must have the columns variant and seed, the columns of mine.csv are a, b"),
        (["mine.csv"], "variant,seed,a,b\nx,0,1,2\n", "--metric must be one of the columns, got 'score'"),
        (["mine.csv"], "variant,seed,a\nx,0,1\nx,0,2\n", "x with seed 0 is in line 2 and line 3 of mine.csv"),
        (["mine.csv"], "variant,seed,a\nx,0,1\ny,zero,2\n", "got 'zero' and '2' in line 3 of mine.csv"),
        (["mine.csv"], "variant,seed,a\nx,0,nan\ny,0,1\n", "a score must be a finite number, that of x with seed 0"),
        (["mine.csv"], "variant,seed,a\nx,0,1\n", "scores must be those of two variants at least, mine has x"),
        (["none.csv"], CSV, "scores must be a CSV file that can be read, none.csv is not"),
        ([], CSV, "scores must come from a file or from an --experiment of MLflow, got none"),
        (["--experiment", "theirs"], CSV, "--experiment must come with --metric"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(
    words: list[str], text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.csv").write_text(text)
    assert run(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
