"""Folders that cannot be read or written end in one line before anything starts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.cli import main as cli
from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.run_folder import RUN, RunInfo, write_run

RECORDING = ["train", "tune", "ablate", "noise", "scale"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("something was started"))


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """Paths, and what is not allowed there: a superuser, such as CI has, is allowed everything."""
    paths: dict[Path, int] = {}
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not paths.get(Path(path), 0) & mode and real(path, mode))
    return paths


def refused(line: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert run(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("s4: ")
    assert message in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", RECORDING)
@pytest.mark.parametrize("option", ["--storage", "--tracking-uri"])
def test_a_place_that_cannot_be_made_is_refused(
    command: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    given = "sqlite:///file/mlflow.db" if option == "--tracking-uri" else "file/runs"
    refused(f"{command} {option} {given}", f"{tmp_path / 'file'} is no folder: give another {option}", tmp_path, capsys)


@pytest.mark.parametrize("command", [*RECORDING, "ui"])
def test_a_working_directory_that_cannot_be_written_is_refused(
    command: str, tmp_path: Path, closed: dict[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    closed[tmp_path] = os.W_OK
    refused(command, f"{tmp_path} cannot be written: give another --", tmp_path, capsys)


def test_records_need_a_folder_that_can_be_written(
    tmp_path: Path, closed: dict[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "mlflow.db").touch()
    closed[tmp_path] = os.W_OK
    refused("train", f"{tmp_path} cannot be written: give another --tracking-uri", tmp_path, capsys)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a training that began."""
    folder = tmp_path / "runs" / "begun"
    write_run(folder, RunInfo.of("train", CssExperiment.of("digits_css"), "dev/miou", {}))
    (folder / "outbox.jsonl").touch()
    (folder / "latest.pt").touch()
    return folder


@pytest.mark.parametrize(
    "line",
    ["train --resume --name begun", "ablate --name begun", "evaluate begun", "report begun", "sync begun",
     "doctor begun", "confirm begun", "tune --warm-start begun", "scale --simulate begun",
     "predict begun a.png --out o"],
)  # fmt: skip
def test_a_run_that_cannot_be_read_is_refused(
    line: str, begun: Path, tmp_path: Path, closed: dict[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").touch()
    closed[begun] = os.R_OK | os.X_OK
    refused(line, f"the folder of a run must be readable, {begun} is not: ask its owner", tmp_path, capsys)


@pytest.mark.parametrize("line", ["train --resume --name begun", "sync begun"])
@pytest.mark.parametrize("part", ["", "outbox.jsonl", RUN])
def test_a_run_of_another_user_is_not_gone_on_with(
    line: str, part: str, begun: Path, tmp_path: Path, closed: dict[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    closed[begun / part] = os.W_OK
    refused(line, f"{begun / part} cannot be written: give another --storage", tmp_path, capsys)


def test_an_evaluation_that_cannot_be_written_is_refused_before_it_is_made(
    begun: Path, tmp_path: Path, closed: dict[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    closed[begun] = os.W_OK
    refused("evaluate begun", f"{begun} cannot be written: give another --out", tmp_path, capsys)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO])
def test_what_the_system_forbids_later_on_is_one_line_without_a_traceback(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise OSError(number, os.strerror(number), "x")

    monkeypatch.setattr(cli, "app", fails)
    assert run(["report"]) == 1
    error = capsys.readouterr().err
    assert ("Traceback" in error) == (number == errno.EIO)
    assert number == errno.EIO or error == f"s4: failed: [Errno {number}] {os.strerror(number)}: 'x'\n"
