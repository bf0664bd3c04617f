"""`s4 doctor` knows every kind of run, and leaves alone those that are in progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invented.searches import made_config, made_info
from mlflow import MlflowClient

from harness.cli.main import run
from harness.doctor import diagnose
from harness.ledger import LEDGER, Ledger
from harness.one_driver import LOCK, Lock
from harness.run_folder import COMMANDS, Kind, checkpoint_folder, read_run, write_run
from harness.tracking.recorder import MlflowRecorder
from harness.trials import Trial, TrialState
from search_spaces import load_space
from trainers.overrides import apply_overrides

REQUESTS: Mapping[Kind, Mapping[str, Any]] = {"search": {"options": {}, "space": load_space("css_quick").text}}


def made_run(folder: Path, kind: Kind, uri: str) -> Path:
    """Write a run of one trial that is over; its study, where it has one, is rebuilt by the doctor."""
    write_run(folder, made_info(kind, {}, REQUESTS.get(kind, {})))
    tags = (lambda trial: {"s4.kind": "point"}) if kind == "scale" else None
    with MlflowRecorder(uri, "s4", kind, folder.name, {}, folder / "outbox.jsonl", trial_tags=tags) as recorder:
        overrides = {} if kind == "train" else {"seed": 1}
        config = apply_overrides(made_config(), overrides)
        trial = Trial(
            0, load_space("css_quick").baseline_params, overrides, config.hash, config.model_dump(mode="json")
        )
        ledger = Ledger(folder / LEDGER, "dev/miou")
        observers = [recorder] if kind == "scale" else [ledger, recorder]
        for observer in observers:
            observer.on_start(trial)
        trial.take_in({"step": 120.0, "dev/miou": 0.4}, 0.4)
        trial.state = TrialState.COMPLETE
        for observer in observers:
            observer.on_report(trial)
            observer.on_end(trial)
        ledger.close()
    diagnose(folder, read_run(folder), uri, fix=True)
    return folder


class Sick:
    """A run of a kind, and its store."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri, self.client = folder, uri, MlflowClient(uri)

    def findings(self, fix: bool = False) -> list[str]:
        return [finding.what for finding in diagnose(self.folder, read_run(self.folder), self.uri, fix)]

    def leave_running(self, child: bool) -> None:
        experiment = self.client.get_experiment_by_name("s4")
        for found in self.client.search_runs([experiment.experiment_id]):
            if ("mlflow.parentRunId" in found.data.tags) == child:
                self.client.update_run(found.info.run_id, status="RUNNING")


@pytest.fixture(params=COMMANDS)
def sick(request: pytest.FixtureRequest, tmp_path: Path, new_store: Callable[[Path], str]) -> Sick:
    uri = new_store(tmp_path)
    return Sick(made_run(tmp_path / "runs" / "first", request.param, uri), uri)


def test_what_disagrees_is_found_and_mended_in_runs_of_every_kind(sick: Sick) -> None:
    train = read_run(sick.folder).kind == "train"
    assert sick.findings() == []
    sick.leave_running(child=not train)
    assert len(sick.findings()) == 1
    sick.leave_running(child=False)
    (checkpoint_folder(sick.folder / "trials", 0)).mkdir(parents=True)
    (checkpoint_folder(sick.folder / "trials", 0) / ".next.pt.4711.tmp").touch()
    assert len(sick.findings(fix=True)) == (2 if train else 3)
    assert sick.findings() == []


def test_a_run_yaml_of_another_config_is_found_in_runs_of_every_kind(sick: Sick) -> None:
    info = read_run(sick.folder)
    other = apply_overrides(made_config(), {"schedule.steps": 60})
    write_run(sick.folder, replace(info, config=other.model_dump(mode="json")))
    assert [what for what in sick.findings() if f"has hash {other.hash}, and {info.config_hash}" in what]
    write_run(sick.folder, replace(info, config=other.model_dump(mode="json"), config_hash=other.hash))
    expected = [] if info.kind == "scale" else ["run.yaml makes other configs of trials 0 than they were trained with"]
    assert [what.partition(":")[0] for what in sick.findings()] == expected


@pytest.mark.parametrize("lock", [LOCK, "outbox.jsonl.lock"])
def test_a_run_in_progress_is_said_to_be_and_not_touched(
    sick: Sick, lock: str, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = sick.folder / ".next.pt.4711.tmp"
    draft.touch()
    held = Lock(sick.folder / lock)
    try:
        said = command(sick, capsys, "first", "--fix")
    finally:
        held.release()
    assert said[0] == 0
    assert "in progress, process" in said[1]
    assert said[2]["in_progress"].startswith("process")
    assert draft.exists()


def test_all_runs_of_a_storage_are_checked_and_one_that_cannot_be_read_hides_none(
    sick: Sick, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(sick, capsys, "--all")[::2] == (0, {"runs": [{**HEALTHY, "trials": len(trials(sick))}]})
    (sick.folder.parent / "broken").mkdir()
    (sick.folder.parent / "broken" / "run.yaml").write_text("garbage")
    code, said, data = command(sick, capsys, "--all")
    assert (code, [item["name"] for item in data["runs"]]) == (1, ["broken", "first"])
    assert "must be what s4 wrote" in data["runs"][0]["findings"][0]["what"]
    assert "2 runs in" in said


@pytest.mark.parametrize("words", [[], ["first", "--all"]])
def test_a_name_or_all_must_be_given(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", *words]) == 2
    assert "must be given the name of a run or --all" in capsys.readouterr().err


HEALTHY = {"name": "first", "in_progress": None, "repaired": [], "findings": []}


def trials(sick: Sick) -> list[int]:
    return [] if read_run(sick.folder).kind == "scale" else [0]


def command(sick: Sick, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, Any]:
    """Return exit code, lines and JSON of a doctor's visit."""
    code = run(["doctor", *words, "--storage", str(sick.folder.parent), "--tracking-uri", sick.uri, "--json"])
    said = capsys.readouterr()
    return code, said.err, json.loads(said.out)
