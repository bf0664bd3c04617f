"""`python -m trainers`, without Ray."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainers.__main__ import main, parse_settings
from trainers.errors import ConfigError

TINY = [
    "digits_css", "--set", "schedule.steps=4", "--set", "schedule.evaluate_every=2", "--set", "model.width=8",
    "--set", "data.unlabelled=16", "--set", "data.dev=8", "--set", "loss.queries=16",
]  # fmt: skip

WITHOUT_RAY = """
import sys
from trainers.__main__ import main
code = main(sys.argv[1:])
loaded = {"ray", "mlflow", "optuna", "harness", "search_spaces"} & set(sys.modules)
sys.exit(f"loaded {loaded}" if loaded else code)
"""


def test_training_from_the_command_line_loads_neither_ray_nor_tracking_nor_search(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_RAY, *TINY, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_training_prints_a_line_a_report_and_leaves_a_checkpoint_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["step", "2"], ["step", "4"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest.pt",
        "predictions.png",
        "representations.png",
        "splits",
    ]


def test_a_finished_run_that_is_started_again_trains_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*TINY, "--out", str(tmp_path)])
    before = torch.load(tmp_path / "latest.pt", weights_only=True)["student"]
    capsys.readouterr()
    assert main([*TINY, "--out", str(tmp_path)]) == 0
    after = torch.load(tmp_path / "latest.pt", weights_only=True)["student"]
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert len(capsys.readouterr().out.splitlines()) == 1


WRONG = {
    "digits_cs": "error: a preset must be one of",
    "--set loss.lambda=1": "error: a config path must exist, got 'loss.lambda'",
    "--set optimizer.lr=-1": "error: optimizer.lr: Input should be greater than 0, got -1",
    "--set schedule.steps": "error: --set must be PATH=VALUE, got 'schedule.steps'",
    "--set optimizer.lr=[": "error: --set must have a YAML value, got 'optimizer.lr=['",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_use_ends_with_exit_code_2_and_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(WRONG[line])
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_file_that_is_no_checkpoint_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latest.pt").write_bytes(b"no checkpoint")
    assert main([*TINY, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_training_that_diverges_fails_with_exit_code_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--set", "optimizer.lr=1.0e+30"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("failed: training diverged by step 2:")
    assert captured.err.count("\n") == 1


def test_settings_are_yaml_scalars_and_lists() -> None:
    assert parse_settings(["a.b=0.5", "c=[1, 2]", "d=word", "e=null", "f=a=b"]) == {
        "a.b": 0.5,
        "c": [1, 2],
        "d": "word",
        "e": None,
        "f": "a=b",
    }


def test_a_setting_without_a_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="--set must be PATH=VALUE, got '=3'"):
        parse_settings(["=3"])
