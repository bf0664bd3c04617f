from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState as OptunaState

from harness.cli.main import run
from harness.event_log import LEDGER, Ledger
from harness.experiment import CssExperiment
from harness.run_folder import RunInfo, checkpoint_folder, write_run
from harness.tracking.recorder import MlflowRecorder
from harness.trials import Trial, TrialState
from harness.tuning.doctor import Finding, diagnose
from harness.tuning.objectives import Objective
from harness.tuning.study import JOURNAL, journal
from trainers.checkpoint import save_checkpoint
from trainers.errors import UsageError

STATES = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.INTERRUPTED]


@dataclass
class Search:
    """A healthy search of three trials whose records agree."""

    folder: Path
    uri: str

    def diagnose(self) -> list[Finding]:
        return diagnose(self.folder, Objective("dev/miou", "max"), self.uri)

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def run(self, number: int) -> Run:
        experiment = self.client.get_experiment_by_name("s4")
        assert experiment is not None
        return self.client.search_runs([experiment.experiment_id], f"tags.`s4.trial` = '{number}'")[0]

    def optuna_id(self, number: int) -> int:
        import optuna

        study = optuna.load_study(study_name="search", storage=journal(self.folder / JOURNAL))
        return study.trials[number]._trial_id


@pytest.fixture
def search(tmp_path: Path, new_store: Callable[[Path], str]) -> Search:
    import optuna

    folder, uri = tmp_path / "search", new_store(tmp_path)
    study = optuna.create_study(study_name="search", storage=journal(folder / JOURNAL), direction="maximize")
    ledger = Ledger(folder / LEDGER, "dev/miou")
    with MlflowRecorder(uri, "s4", "search", "search", {}, folder / "outbox.jsonl") as recorder:
        for number, state in enumerate(STATES):
            drawn = study.ask()
            drawn.suggest_float("x", 0, 1)
            trial = Trial(number, {"x": 0.5}, {}, config={"seed": 0})
            for observer in (ledger, recorder):
                observer.on_start(trial)
            trial.take_in({"step": 10.0, "dev/miou": 0.4}, 0.4)
            for observer in (ledger, recorder):
                observer.on_report(trial)
            trial.state = state
            if state is TrialState.COMPLETE:
                study.tell(drawn, 0.4)
            elif state is TrialState.PRUNED:
                study.tell(drawn, state=OptunaState.PRUNED)
            else:
                study._storage.set_trial_state_values(drawn._trial_id, OptunaState.WAITING)
            for observer in (ledger, recorder):
                observer.on_end(trial)
            if state is not TrialState.PRUNED:
                save_checkpoint(checkpoint_folder(folder / "trials", number) / "latest.pt", {"x": torch.zeros(2)})
    ledger.close()
    return Search(folder, uri)


def a_zombie_in_optuna(search: Search) -> None:
    journal(search.folder / JOURNAL).set_trial_state_values(search.optuna_id(2), OptunaState.RUNNING)


def another_end_in_mlflow(search: Search) -> None:
    search.client.set_terminated(search.run(1).info.run_id, "FINISHED")


def a_run_left_running(search: Search) -> None:
    search.client.update_run(search.run(2).info.run_id, status="RUNNING")


def a_parent_left_running(search: Search) -> None:
    parent = search.run(0).data.tags["mlflow.parentRunId"]
    search.client.update_run(parent, status="RUNNING")


def a_second_run(search: Search) -> None:
    run = search.run(0)
    search.client.create_run(run.info.experiment_id, tags=dict(run.data.tags))


def a_checkpoint_of_a_pruned_trial(search: Search) -> None:
    save_checkpoint(checkpoint_folder(search.folder / "trials", 1) / "latest.pt", {"x": torch.zeros(2)})


def a_checkpoint_that_cannot_be_read(search: Search) -> None:
    (checkpoint_folder(search.folder / "trials", 2) / "latest.pt").write_bytes(b"half")


def a_checkpoint_of_nobody(search: Search) -> None:
    save_checkpoint(checkpoint_folder(search.folder / "trials", 7) / "latest.pt", {"x": torch.zeros(2)})


def an_end_that_only_the_ledger_knows(search: Search) -> None:
    ledger = Ledger(search.folder / LEDGER, "dev/miou")
    ledger.on_end(Trial(2, {}, {}, state=TrialState.FAIL, error="broken"))
    ledger.close()


AILMENTS = [
    (a_zombie_in_optuna, [(2, "RUNNING in Optuna")]),
    (another_end_in_mlflow, [(1, "PRUNED in the ledger, FINISHED in MLflow, where KILLED is meant")]),
    (a_run_left_running, [(2, "INTERRUPTED in the ledger, RUNNING in MLflow")]),
    (a_parent_left_running, [(None, "the parent run is RUNNING in MLflow")]),
    (a_second_run, [(0, "has a second run in MLflow")]),
    (a_checkpoint_of_a_pruned_trial, [(1, "PRUNED, and its checkpoint is still there")]),
    (a_checkpoint_that_cannot_be_read, [(2, "a checkpoint must be readable")]),
    (a_checkpoint_of_nobody, [(7, "has a checkpoint, unknown to the ledger")]),
    (
        an_end_that_only_the_ledger_knows,
        [
            (2, "FAIL in the ledger, WAITING in Optuna"),
            (2, "FAIL in the ledger, KILLED in MLflow"),
            (2, "FAIL, and its checkpoint is still there"),
        ],
    ),
]


def test_a_healthy_search_has_no_finding(search: Search) -> None:
    assert search.diagnose() == []


@pytest.mark.parametrize(("fall_ill", "expected"), AILMENTS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_disagrees_is_found_and_nothing_else(
    search: Search, fall_ill: Callable[[Search], None], expected: list[tuple[int | None, str]]
) -> None:
    fall_ill(search)
    findings = search.diagnose()
    assert [finding.trial for finding in findings] == [trial for trial, _ in expected]
    assert all(what in finding.what for finding, (_, what) in zip(findings, expected, strict=True))


@pytest.mark.parametrize("fall_ill", [ailment for ailment, _ in AILMENTS])
def test_what_is_repaired_is_not_found_again(search: Search, fall_ill: Callable[[Search], None]) -> None:
    fall_ill(search)
    for finding in search.diagnose():
        assert finding.repair is not None
        finding.repair()
    assert [finding.what for finding in search.diagnose() if "without a checkpoint" not in finding.what] == []


def test_a_run_that_is_missing_is_found(search: Search) -> None:
    search.client.delete_run(search.run(0).info.run_id)
    assert [finding.what for finding in search.diagnose()] == ["COMPLETE in the ledger, without a run in MLflow"]


def test_the_command_repairs_what_it_can_and_ends_with_1_while_something_disagrees(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = CssExperiment.of("digits_css")
    write_run(search.folder, RunInfo.of("search", experiment, "dev/miou", {"options": {}, "space": ""}))
    command = ["doctor", "search", "--storage", str(search.folder.parent), "--tracking-uri", search.uri, "--json"]
    a_run_left_running(search)
    what = "INTERRUPTED in the ledger, RUNNING in MLflow, where KILLED is meant"
    assert run(command) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["findings"] == [{"trial": 2, "what": what, "repairable": True}]
    assert "1 of 1 can be repaired: s4 doctor search --fix" in captured.err
    assert run([*command, "--fix"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["repaired"] == [f"trial 2: {what}"]
    assert "ledger, Optuna, MLflow and checkpoints agree on 3 trials" in captured.err


def test_a_server_that_is_down_is_one_line(search: Search) -> None:
    with pytest.raises(UsageError, match=r"^MLflow must be reachable at http://127.0.0.1:9, it is not[^\n]*$"):
        replace(search, uri="http://127.0.0.1:9").diagnose()
