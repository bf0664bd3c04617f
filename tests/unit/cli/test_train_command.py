"""`s4 train`: how many workers, and going on with a training that began; nothing is started or changed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.api.trainings import worker_sizes
from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.ledger import LEDGER
from harness.run_folder import RunInfo, read_run, write_run
from trainers.errors import UsageError

SETTINGS = {"schedule.steps": 120}
EXPERIMENT = CssExperiment.of("digits_css", {"schedule.labelled_batch": 4, "schedule.unlabelled_batch": 8})


@pytest.mark.parametrize(("text", "sizes"), [("1", (1,)), ("4", (4,)), ("1:4", (1, 2, 4)), ("3:4", (4,))])
def test_sizes_are_those_that_share_the_batches(text: str, sizes: tuple[int, ...]) -> None:
    assert worker_sizes(text, EXPERIMENT) == sizes


@pytest.mark.parametrize("text", ["0", "3", "5:7", "4:2", "two", "1:", "-1", "1:2:4"])
def test_other_workers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="must be"):
        worker_sizes(text, EXPERIMENT)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    experiment = CssExperiment.of("digits_css", SETTINGS)
    write_run(tmp_path / "begun", RunInfo.of("train", experiment, "dev/miou", {}))
    return tmp_path / "begun"


def refusal(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    code = run(["train", "--resume", "--storage", str(folder.parent), *options])
    assert code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_what_a_training_began_with_is_read_as_it_was_written(begun: Path) -> None:
    info = read_run(begun, "train")
    assert (info.preset, info.settings, info.horizon) == ("digits_css", SETTINGS, 120)


def test_another_config_is_refused(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(begun, capsys, "--name", "begun", "--set", "schedule.steps=240")
    assert "schedule.steps (120 then, 240 now)" in said


def test_another_method_is_refused(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "with the config it began with" in refusal(begun, capsys, "--name", "begun", "--method", "supervised")


def test_another_method_than_that_it_began_with_is_refused(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = CssExperiment.of("digits_css", None, "css_mix")
    write_run(begun, RunInfo.of("train", experiment, "dev/miou", {}))
    said = refusal(begun, capsys, "--name", "begun", "--method", "css_cross")
    assert "css.label_strategy (mix then, cross now)" in said


def test_a_training_that_is_over_is_refused(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = {"event": "start", "trial": 0, "params": {}, "overrides": {}, "config_hash": ""}
    end = {"event": "end", "trial": 0, "state": "COMPLETE", "error": None}
    (begun / LEDGER).write_text(f"{json.dumps(start)}\n{json.dumps(end)}\n")
    assert "begun is complete" in refusal(begun, capsys, "--name", "begun")


def test_a_training_that_was_never_begun_is_refused(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a training must have written" in refusal(begun, capsys, "--name", "nothing")


def test_a_training_without_a_name_is_refused(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume must come with the --name" in refusal(begun, capsys)
