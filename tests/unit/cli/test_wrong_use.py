"""Mistakes end with exit code 2 and one line that says what must hold, what was given and what to do."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import main as cli
from harness.cli.main import run
from harness.cli.records import report


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


WRONG = {
    "tune digits_cs": "got 'digits_cs': did you mean digits_css?",
    "train digits_cs": "got 'digits_cs': did you mean digits_css?",
    "tune --space css_quik": "got 'css_quik': did you mean css_quick?",
    "tune --space missing.yaml": "got missing.yaml: No such file",
    "tune --set loss.lambda=1": "a config path must exist, got 'loss.lambda'",
    "tune --set optimizer.lr=-1": "optimizer.lr: Input should be greater than 0, got -1",
    "tune --set schedule.steps": "--set must be PATH=VALUE, got 'schedule.steps'",
    "tune --set optimizer.lr=[": "--set must have a YAML value, got 'optimizer.lr=['",
    "tune --set seed=2020-99-99": "--set must have a YAML value, got 'seed=2020-99-99'",
    f"tune --set seed={'1' * 5000}": "--set must have a YAML value, got 'seed=111",
    f"tune --set seed={'[' * 3000}": "--set must have a YAML value, got 'seed=[[[",
    "tune --set =1": "--set must be PATH=VALUE, got '=1'",
    "tune --set .=1": "a config path must exist, got '.'",
    "tune --set loss.lambda_c.x=1": "a config path must exist, got 'loss.lambda_c.x'",
    "tune --set loss.lambda_c.x=null": "a config path must exist, got 'loss.lambda_c.x'",
    "tune --set data.name=folder --set data.name.x=1": "got 'data.name.x': name is a value, and nothing is below it",
    "tune --set loss.lambda_c=.nan": "loss.lambda_c: Input should be a finite number, got nan",
    "tune --set loss.lambda_c=1e400": "loss.lambda_c: Input should be a finite number, got '1e400'",
    f"tune --set loss.lambda_c={'1' * 400}": "loss.lambda_c: Input should be a valid number, got 111",
    f"tune --set schedule.steps={'1' * 400}": "schedule: steps must be at most 9007199254740992, got 111",
    "tune --set data.labelled=9007199254740992": "data.labelled: Input should be less than or equal to 1000000",
    "tune --set seed=1 --set seed=2": "--set must name a path once, got seed twice",
    "tune --method supervised": "loss.lambda_c is searched there",
    "train digits_supervised --method cutmix": "method cutmix must have a loss on unlabelled images",
    "train digits_supervised --set method=cutmix": "method cutmix must have a loss on unlabelled images",
    "tune --method supervise": "got 'supervise': did you mean supervised?",
    "tune --set loss.lambda_u=2": "loss.lambda_u is searched there",
    "train --cpus-per-worker 100000": "at most the 0 places of 100000 CPUs there are, got 1 x 1 = 1: lower",
    "tune --cpus-per-worker 100000": "at most the 0 places of 100000 CPUs there are, got 1 x 1 = 1: lower",
    "plan --cpus-per-worker 2": "--cpus-per-worker must be in the plan of a search",
    "scale --simulate a --cpus-per-worker 2": "--cpus-per-worker must be left out with --simulate",
    "tune --space css --set thresholds.unit=probability": "thresholds.unit is fixed there",
    "tune --grace-steps 1000": "--grace-steps must be at most the horizon, 900 steps, got 1000",
    "tune --study postgresql://me:secret@host/db --name a": "--study must hold no password, this URL does",
    "tune --study study.db --name a": "got 'study.db': correct it",
    "tune --study sqlite:///no/folder/study.db --name a": "folder/study.db is not (unable to open database file)",
    "tune --study postgresql+psycopg://me@127.0.0.1:1/db --name a": "127.0.0.1:1/db is not (connection failed",
    "tune --study mysql://me@host/db --name a": "me@host/db is not (No module named 'MySQLdb')",
    "tune --study sqlite:///study.db": "--study must go with the name of the study, got none",
    "tune --study-name both": "--study-name must go with --study URL",
    "tune --name a/b": "a name must be letters, digits",
    "tune --name taken": "a name must be free,",
    "train --name taken": "a name must be free,",
    "report nothing": "got 'nothing': known: taken",
    "report take": "got 'take': did you mean taken?",
    "report taken": "run.yaml must be what s4 wrote",
    "sync taken": "an outbox must lie at",
    "report ../x": "a name must be letters, digits",
    "tune --objective dev/miuo": "got 'dev/miuo': did you mean dev/miou",
    "tune --objective dev/miou --objective other/miou": "got 'other/miou': did you mean dev/miou?",
    "tune --objective val/miou": "got 'val/miou': did you mean dev/miou? There are dev/miou, train/loss/total,",
    "tune --constraint train/foo<=0.5": "--constraint must name a metric that there will be, got 'train/foo'",
    "ablate --metric val/foo": "got 'val/foo': did you mean val/miou? There are dev/miou, dev/iou/..., val/miou",
    "ablate --metric dev/iou/11": "--metric must name a metric that there will be, got 'dev/iou/11'",
    **{
        f"{command} --tracking-uri http://127.0.0.1:9": "MLflow must be reachable at http://127.0.0.1:9, it is not"
        for command in ("evaluate nothing", "evaluate models:/nothing/1", "ui taken")
    },
    **{
        f"{command} --tracking-uri htp://foo:5000": "a tracking URI must be one of MLflow's, got 'htp://foo:5000'"
        for command in (
            "train",
            "tune",
            "ablate",
            "confirm taken",
            "noise",
            "scale",
            "sync taken",
            "doctor taken",
            "evaluate taken",
            "ui",
        )
    },
}


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_answered_in_one_line(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "runs" / "taken"
    taken.mkdir(parents=True)
    (taken / "results.json").write_text("[]")
    (taken / "run.yaml").write_text("version: 2")
    assert run(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("s4: ")
    assert WRONG[line] in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["taken"]


@pytest.mark.parametrize("line", ["tune --bogus", "tune --trials 0", "tune --scheduler nope", "nothing", "report"])
def test_an_option_that_is_none_ends_with_exit_code_2(line: str) -> None:
    assert run(line.split()) == 2


def test_a_space_that_the_config_cannot_take_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "name: s\nsource: a test\nbaseline: {loss.queries: 256}\n"
        "parameters:\n  loss.queries: {int: {low: 251, high: 261}}\n"
    )
    assert run(["tune", "--space", str(space)]) == 2
    assert "space s must fit the config: loss: negative_groups must divide queries (251)" in capsys.readouterr().err


def test_ui_refuses_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["ui", "--port", str(port)]) == 2
    assert f"a port must be free, {port} on 127.0.0.1 is taken" in capsys.readouterr().err


def test_ui_points_to_a_server_that_runs_already(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ui", "--tracking-uri", "http://tracking:5000"]) == 0
    assert "open http://tracking:5000" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("boom"), 1)])
def test_other_ends_have_their_own_exit_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise error

    [command] = [known for known in cli.app.registered_commands if known.callback is report]
    monkeypatch.setattr(command, "callback", fails)
    assert run(["report"]) == code


def test_help_is_instant_because_nothing_slow_is_imported() -> None:
    code = (
        "import sys; from harness.cli.main import run; run(['--help']); run(['tune', '--help'])\n"
        "slow = {'torch', 'ray', 'mlflow', 'optuna', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 5  # half a second on a quiet machine
