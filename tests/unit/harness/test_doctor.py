from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from invented.searches import made_info, params_of
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState as OptunaState

from harness.cli.main import run
from harness.doctor import Finding, diagnose
from harness.ledger import LEDGER, Ledger
from harness.run_folder import checkpoint_folder, read_run, write_run
from harness.tracking.outbox import mend_outbox
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.stores import OUTBOX
from harness.trials import Trial, TrialState
from harness.tuning.study import JOURNAL, journal
from search_spaces import load_space
from trainers.checkpoint import save_checkpoint

STATES = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.INTERRUPTED]


@dataclass
class Search:
    """A healthy search of three trials whose records agree."""

    folder: Path
    uri: str

    def diagnose(self) -> list[Finding]:
        return diagnose(self.folder, read_run(self.folder), self.uri)

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

    folder, uri, space = tmp_path / "search", new_store(tmp_path), load_space("css_quick")
    write_run(folder, made_info("search", {}, {"options": {}, "space": space.text}))
    study = optuna.create_study(study_name="search", storage=journal(folder / JOURNAL), direction="maximize")
    ledger = Ledger(folder / LEDGER, "dev/miou")
    with MlflowRecorder(uri, "s4", "search", "search", {}, folder / "outbox.jsonl") as recorder:
        for number, state in enumerate(STATES):
            drawn = study.ask()
            drawn.suggest_float("x", 0, 1)
            trial = Trial(number, params_of(space, number), {}, config={"seed": 0})
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


def a_journal_with_garbage_in_it(search: Search) -> None:
    first, *others = (search.folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (search.folder / JOURNAL).write_bytes(b"".join([first, b"\xff garbage\n", *others]))


def a_journal_of_another_shape(search: Search) -> None:
    (search.folder / JOURNAL).write_text('{"something": "else"}\n')


def no_journal(search: Search) -> None:
    (search.folder / JOURNAL).unlink()


def a_journal_that_lost_its_end(search: Search) -> None:
    lines = (search.folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (search.folder / JOURNAL).write_bytes(b"".join(lines[:-4]))


def a_lock_of_a_killed_driver(search: Search) -> None:
    (search.folder / f"{JOURNAL}.lock").symlink_to(search.folder / JOURNAL)


def garbage_in_the_outbox(search: Search) -> None:
    with (search.folder / OUTBOX).open("ab") as file:
        file.write(b"\xff garbage\n")


def a_text_in_the_outbox(search: Search) -> None:
    with (search.folder / OUTBOX).open("a") as file:
        file.write('"text"\n')


def records_that_were_not_sent(search: Search) -> None:
    (search.folder / f"{OUTBOX}.done").write_text("3")


def a_draft(search: Search) -> None:
    (search.folder / ".results.json.0123abcd.tmp").touch()


AILMENTS = [
    (a_zombie_in_optuna, [(2, "RUNNING in Optuna")]),
    (another_end_in_mlflow, [(1, "PRUNED in the ledger, FINISHED in MLflow, where KILLED is meant")]),
    (a_run_left_running, [(2, "INTERRUPTED in the ledger, RUNNING in MLflow")]),
    (a_parent_left_running, [(None, "the parent run is RUNNING in MLflow")]),
    (a_second_run, [(0, "has a second run in MLflow")]),
    (a_checkpoint_of_a_pruned_trial, [(1, "PRUNED, and its checkpoint is still there")]),
    (a_checkpoint_that_cannot_be_read, [(2, "a checkpoint must be readable")]),
    (a_checkpoint_of_nobody, [(7, "has a checkpoint, unknown to the ledger")]),
    (a_journal_with_garbage_in_it, [(None, "optuna.journal cannot be read (line 2 is no JSON")]),
    (a_journal_of_another_shape, [(None, "optuna.journal cannot be read")]),
    (no_journal, [(None, "optuna.journal is missing")]),
    (a_journal_that_lost_its_end, [(None, "optuna.journal lacks 1 of the ledger's 3 trials")]),
    (a_lock_of_a_killed_driver, [(None, "optuna.journal.lock was left by a killed driver")]),
    (garbage_in_the_outbox, [(None, "is no JSON")]),
    (a_text_in_the_outbox, [(None, "is str, no object")]),
    (records_that_were_not_sent, [(None, "records did not reach MLflow")]),
    (a_draft, [(None, "1 draft of killed writers, .results.json.0123abcd.tmp")]),
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


def test_a_run_of_another_search_of_that_name_is_left_alone(search: Search) -> None:
    run = search.run(0)
    tags = {**run.data.tags, "s4.search_id": "another"}
    search.client.create_run(run.info.experiment_id, tags=tags)
    assert search.diagnose() == []


def test_a_search_is_looked_for_in_the_experiment_that_it_was_recorded_in(search: Search) -> None:
    search.client.rename_experiment(search.client.get_experiment_by_name("s4").experiment_id, "mine")
    outbox = search.folder / OUTBOX
    outbox.write_text(outbox.read_text().replace('"experiment":"s4"', '"experiment":"mine"'))
    assert search.diagnose() == []


def test_what_the_outbox_still_holds_decides_how_runs_end(search: Search) -> None:
    parent = search.run(0).data.tags["mlflow.parentRunId"]
    records_that_were_not_sent(search)
    a_parent_left_running(search)
    diagnose(search.folder, read_run(search.folder), search.uri, fix=True)
    assert search.client.get_run(parent).info.status == "FINISHED"


@pytest.mark.parametrize("lines", [b"garbage\n", b'{"op":"tag","time":1}\n'])
def test_an_outbox_without_its_beginning_is_put_aside(search: Search, lines: bytes) -> None:
    kept = (search.folder / OUTBOX).read_bytes().split(b"\n", 1)[1]
    (search.folder / OUTBOX).write_bytes(lines + kept)
    (finding,) = search.diagnose()
    assert finding.repair is not None
    finding.repair()
    assert not (search.folder / OUTBOX).exists()
    assert (search.folder / f"{OUTBOX}.broken-001").read_bytes() == lines + kept


def test_an_outbox_that_is_mended_forgets_no_operation_that_was_not_sent(search: Search) -> None:
    whole = (search.folder / OUTBOX).read_bytes().splitlines(keepends=True)
    (search.folder / OUTBOX).write_bytes(b"".join([*whole[:2], b"garbage\n", *whole[2:]]))
    (search.folder / f"{OUTBOX}.done").write_text("5")
    mend_outbox(search.folder / OUTBOX)
    assert (search.folder / OUTBOX).read_bytes() == b"".join(whole)
    assert (search.folder / f"{OUTBOX}.done").read_text() == "4"


def test_a_store_that_cannot_be_asked_is_a_finding(search: Search) -> None:
    database = Path(search.uri.removeprefix("sqlite:///"))
    database.write_bytes(database.read_bytes()[:100] + b"x" * 10_000)
    copy = f"sqlite:///{shutil.copy(database, database.with_name('broken.db'))}"
    (finding,) = diagnose(search.folder, read_run(search.folder), copy)
    assert f"{copy} cannot be asked: " in finding.what


def test_a_run_that_is_missing_is_found(search: Search) -> None:
    search.client.delete_run(search.run(0).info.run_id)
    assert [finding.what for finding in search.diagnose()] == ["COMPLETE in the ledger, without a run in MLflow"]


def test_the_command_repairs_what_it_can_and_ends_with_1_while_something_disagrees(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert "search: all records agree, 3 trials" in captured.err
