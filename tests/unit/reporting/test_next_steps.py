"""Commands to type next: as short as the defaults allow, and such that a shell reads them as they were meant."""

from pathlib import Path

import pytest

from harness.reporting.next_steps import next_commands, resume_command
from harness.tracking.stores import default_tracking_uri


def test_what_is_not_the_default_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, uri = tmp_path / "runs" / "s-001", "sqlite:////elsewhere/mlflow.db"
    where = f" --storage {tmp_path / 'runs'}"
    assert next_commands(folder, uri) == f"s4 report s-001{where}    records: s4 ui s-001 --tracking-uri {uri}"
    assert resume_command(folder, "tune", uri) == f"s4 tune --resume --name s-001{where} --tracking-uri {uri}"
    monkeypatch.chdir(tmp_path)
    assert next_commands(folder, default_tracking_uri()) == "s4 report s-001    records: s4 ui s-001"
    assert resume_command(folder, "train", default_tracking_uri()) == "s4 train --resume --name s-001"


def test_commands_begin_with_the_name_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = next_commands(tmp_path / "runs" / "s", default_tracking_uri(), "bin/s4")
    assert line == "bin/s4 report s    records: bin/s4 ui s"


def test_folders_with_spaces_stay_one_word(tmp_path: Path) -> None:
    folder = tmp_path / "my runs" / "s"
    assert resume_command(folder, "tune") == f"s4 tune --resume --name s --storage '{tmp_path / 'my runs'}'"
