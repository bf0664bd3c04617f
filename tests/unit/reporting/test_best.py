"""`best.yaml`: the best trial of a search, to be trained by its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.reporting.best import write_best
from harness.reporting.next_steps import search_steps
from harness.reporting.record import read_record
from harness.reporting.results import Results, Row, write_results
from harness.run_folder import RunInfo, write_run
from search_spaces import load_space
from search_spaces.space import parse_space
from trainers.overrides import parse_settings

SETTINGS = parse_settings(["schedule.steps=120", "augment.labelled.jitter=0.25", "model.pool_norm=false"])
FIXED = """
name: fixed
source: a test
fixed: {thresholds.unit: of_maximum}
baseline: {loss.lambda_u: 1.0, loss.class_weights: null, optimizer.lr: 0.1}
parameters:
  loss.lambda_u: {float: {low: 0.5, high: 2.0}}
  loss.class_weights: {categorical: [null, auto]}
  optimizer.lr: {float: {low: 1e-7, high: 1.0, log: true}}
"""
DRAWN = {"loss.lambda_u": 1.0123456789012345, "loss.class_weights": None, "optimizer.lr": 1e-5}


def searched(folder: Path, state: str = "COMPLETE", text: str = FIXED, **changes: Any) -> tuple[RunInfo, Results]:
    """Write a search of which trial 3 was the best, and return what it began with and its results."""
    experiment, space = CssExperiment.of("digits_css", SETTINGS), parse_space(text)
    info = replace(RunInfo.of("search", experiment, "dev/miou", {"options": {}, "space": text}), **changes)
    values = DRAWN if text == FIXED else dict(space.baseline)
    config_hash = experiment.resolve({**space.fixed, **values})[1]
    row = Row(3, state, 0.5, 100, 120, values, config_hash, None, None, None)
    results = Results(folder.name, "search", info.preset, space.name, "dev/miou", 120, 1.0, "", space.paths, [row])
    write_run(folder, info)
    write_results(folder, results)
    return info, results


@pytest.mark.parametrize("text", [FIXED, *(load_space(name).text for name in ("css", "css_quick"))])
def test_the_file_makes_the_config_of_the_best_trial(text: str, tmp_path: Path) -> None:
    info, results = searched(tmp_path / "s", text=text)
    file = write_best(tmp_path / "s", info, results)
    assert file == tmp_path / "s" / "best.yaml"
    assert CssExperiment.of(str(file)).base.hash == results.rows[0].config_hash
    assert file.read_text().startswith(
        "# Trial 3 of s, the best of 1: dev/miou 0.5000 at step 100, one seed.\npreset: "
    )


@pytest.mark.parametrize(
    "changes",
    [{"state": "PRUNED"}, {"trainer": "Moons"}, {"settings": {"seed": 1}}, {"preset": "of_an_earlier_version"}],
    ids=["none complete", "own experiment", "another config", "no such preset"],
)
def test_there_is_no_file_that_would_train_something_else(changes: dict[str, Any], tmp_path: Path) -> None:
    info, results = searched(tmp_path / "s", **changes)
    assert write_best(tmp_path / "s", info, results) is None
    assert not (tmp_path / "s" / "best.yaml").exists()


def test_a_report_writes_the_file_and_names_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    searched(tmp_path / "runs" / "my-search")
    assert run(["report", "my-search"]) == 0
    assert "the best: s4 train runs/my-search/best.yaml" in capsys.readouterr().out.splitlines()
    assert yaml.safe_load(Path("runs/my-search/best.yaml").read_text())["loss.lambda_u"] == DRAWN["loss.lambda_u"]
    assert "s4 train runs/my-search/best.yaml" in Path("runs/my-search/report/report.html").read_text()
    [commands] = search_steps(read_record(tmp_path / "runs" / "my-search")).blocks
    assert ("s4 train runs/my-search/best.yaml", "train the best settings") in commands.rows  # type: ignore[union-attr]
