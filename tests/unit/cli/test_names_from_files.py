"""Names that a file or an experiment gives make folders like those of `--name`: never outside the storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import harness
from harness.cli.main import run
from harness.one_driver import new_run
from trainers.errors import UsageError

SPACE = {
    "source": "a test",
    "baseline": {"loss.lambda_u": 1.0},
    "parameters": {"loss.lambda_u": {"float": {"low": 0.5, "high": 2.0}}},
}
PLAN = {"source": "a test", "preset": "digits_css", "variants": {"a": {}, "b": {"loss.lambda_u": 0.5}}}
NO_NAMES = ["../../evil", "a/b", "n" * 300, "-n", "..", "/tmp/evil", " a", "ü"]  # noqa: S108  # refused


class Own(harness.Experiment):
    config = {"lr": 0.1}  # noqa: RUF012  # as users write it

    def __init__(self, name: str) -> None:
        self.name = name

    def train(self, overrides: Any, run: harness.Run) -> None:
        raise AssertionError("nothing may be trained")


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory two folders deep, so that `../..` of the storage is seen."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("something was started"))
    return folder


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize(("command", "content"), [("tune --space", SPACE), ("ablate", PLAN)])
def test_a_file_whose_name_is_no_name_is_refused_in_one_line(
    command: str, content: dict[str, Any], name: str, below: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = below / "file.yaml"
    file.write_text(yaml.safe_dump({"name": name, **content}))
    assert run([*command.split(), str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("s4: a name must be letters, digits, '.', '_' and '-', up to 64")
    assert "--name" in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize("name", [*NO_NAMES, "n" * 61])
def test_an_experiment_whose_name_is_no_name_is_refused(name: str, below: Path) -> None:
    with pytest.raises(UsageError, match="a name must be letters"):
        harness.train(Own(name), quiet=True)
    assert not list(below.iterdir())


@pytest.mark.parametrize("command", ["tune", "train", "ablate", "noise", "scale"])
def test_an_empty_name_is_no_name(command: str, below: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--name", ""]) == 2
    assert "a name must be letters" in capsys.readouterr().err
    assert not list(below.iterdir())


def test_a_stem_is_numbered_within_the_storage(tmp_path: Path) -> None:
    (tmp_path / "css-001").mkdir()
    (tmp_path / "css-001" / "run.yaml").touch()
    with new_run(tmp_path, None, "css") as folder:
        assert folder == tmp_path / "css-002"
