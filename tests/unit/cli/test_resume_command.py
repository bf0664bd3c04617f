"""`s4 tune --resume` refuses to go on with a search that would not be the same; nothing is started or changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.run_folder import RunInfo, read_run, write_run
from harness.tuning.config import SearchConfig
from search_spaces import load_space


@pytest.fixture
def info(tmp_path: Path) -> RunInfo:
    experiment = CssExperiment.of("digits_css", {"schedule.steps": 120})
    options = SearchConfig.of(trials=4).model_dump(mode="json")
    request = {"options": options, "space": load_space("css_quick").text}
    begun = RunInfo.of("search", experiment, "dev/miou", request)
    write_run(tmp_path / "begun", begun)
    return begun


def refusal(storage: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    code = run(["tune", "--resume", "--storage", str(storage), *options])
    assert code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_what_a_search_began_with_is_read_as_it_was_written(info: RunInfo, tmp_path: Path) -> None:
    assert read_run(tmp_path / "begun", "search") == info


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--set", "schedule.steps=240"],
            "it differs now in schedule.steps (120 then, 240 now)",
        ),
        (["--space", "css"], "space it began with, css has changed since"),
        (["--sampler", "random"], "--sampler tpe, got random"),
        (["--seed", "7"], "--seed 0, got 7"),
        (["--objective", "time/step_s:min"], "--objective [], got ['time/step_s:min']"),
    ],
)
def test_another_search_is_refused(
    info: RunInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert words in refusal(tmp_path, capsys, "--name", "begun", *options)


def test_other_data_are_refused(info: RunInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "begun", replace(info, data_digest="another"))
    assert "the data it began with" in refusal(tmp_path, capsys, "--name", "begun")


def test_a_search_that_was_never_begun_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a search must have written" in refusal(tmp_path, capsys, "--name", "nothing")


def test_a_search_without_a_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume must come with the --name" in refusal(tmp_path, capsys)


def test_a_refused_resume_changes_nothing(info: RunInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((path.name, path.read_bytes()) for path in (tmp_path / "begun").iterdir())
    refusal(tmp_path, capsys, "--name", "begun", "--seed", "7")
    assert sorted((path.name, path.read_bytes()) for path in (tmp_path / "begun").iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scheduler", "pbt"], "use --sampler random"),
        (["--sampler", "cmaes", "--objective", "a", "--objective", "b"], "with several objectives the sampler must be"),
        (["--constraint", "miou > 3"], "a constraint must be METRIC<=NUMBER"),
        (["--max-hours", "0"], "max_hours: Input should be greater than 0"),
        (["--terminator", "--objective", "a", "--objective", "b"], "--terminator must have one objective"),
        (["--warm-start", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert (
        run(["tune", "--storage", str(tmp_path / "runs"), "--tracking-uri", f"sqlite:///{tmp_path}/m.db", *options])
        == 2
    )
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said
    assert not (tmp_path / "runs").exists()
