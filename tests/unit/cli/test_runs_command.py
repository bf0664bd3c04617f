"""`s4 runs`: what runs take, what is deleted and what is not, and what nobody needs."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from invented.searches import made_search
from mlflow import MlflowClient

from harness.cli.main import run
from harness.ledger import LEDGER, read_ledger
from harness.one_driver import LOCK, Lock
from harness.run_folder import GANGS, LATEST, SESSIONS, TRIALS, checkpoint_folder
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.stores import OUTBOX
from trainers.drafts import draft_name

NAMES = ("first", "second")


class Storage:
    """Two searches that are recorded in one store."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        for name in NAMES:
            made_search(folder / name)
            history = read_ledger(folder / name / LEDGER)
            with MlflowRecorder(uri, "s4", "search", name, {}, folder / name / OUTBOX) as recorder:
                for trial in [*history.trials.values()][:2]:
                    recorder.on_start(trial)
                    recorder.on_end(trial)

    def s4(self, *words: str, records: bool = True) -> int:
        given = ["--tracking-uri", self.uri] if records else []
        return run(["runs", *words, "--storage", str(self.folder), *given])

    def recorded(self) -> list[str]:
        """Names of searches, once for each of their runs in MLflow."""
        client = MlflowClient(self.uri)
        return sorted(str(run.data.tags["s4.search"]) for run in client.search_runs(["1"]))

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def storage(tmp_path: Path, new_store: Callable[[Path], str]) -> Storage:
    return Storage(tmp_path / "runs", new_store(tmp_path))


def test_a_list_tells_what_each_run_takes(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    fill = checkpoint_folder(storage.folder / "first" / TRIALS, 0)
    fill.mkdir(parents=True, exist_ok=True)
    (fill / LATEST).write_bytes(b"\0" * 5000)
    assert storage.s4("list", "--json", records=False) == 0
    first, second = json.loads(capsys.readouterr().out)["runs"]
    sizes = [path.stat().st_size for path in storage.files() if "first" in path.parts]
    assert (first["name"], first["kind"], first["bytes"]) == ("first", "search", sum(sizes))
    assert first["trials"] == len(read_ledger(storage.folder / "first" / LEDGER).trials)
    assert (first["checkpoints"], second["checkpoints"]) == (5000, 0)


def test_the_state_of_a_run_is_told(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    made_search(storage.folder / "open", ended=False)
    lock = Lock(storage.folder / "second" / LOCK)
    assert storage.s4("list", "--json", records=False) == 0
    lock.release()
    found = {run["name"]: run["state"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert found == {"first": "finished", "open": "unfinished", "second": "running"}


def test_a_deleted_run_is_gone_from_disk_and_mlflow_and_no_other_is(storage: Storage) -> None:
    others = {path for path in storage.files() if "second" in path.parts}
    assert storage.s4("delete", "first", "--yes") == 0
    assert storage.files() == others
    assert storage.recorded() == ["second"] * 3


def test_records_are_kept_where_that_is_asked(storage: Storage) -> None:
    assert storage.s4("delete", "first", "--yes", "--keep-records") == 0
    assert not (storage.folder / "first").exists()
    assert storage.recorded() == ["first"] * 3 + ["second"] * 3


def test_a_dry_run_deletes_nothing_and_says_what_would_be(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    before = storage.files()
    assert storage.s4("delete", *NAMES, "--dry-run") == 0
    assert (storage.files(), len(storage.recorded())) == (before, 6)
    assert "would delete 2 runs" in (said := capsys.readouterr().out)
    assert "and 6 runs in MLflow" in said


def test_nothing_is_deleted_where_one_of_the_runs_is_in_progress(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, before = Lock(storage.folder / "second" / LOCK), storage.files()
    assert storage.s4("delete", *NAMES, "--yes") == 2
    assert (storage.files(), len(storage.recorded())) == (before, 6)
    lock.release()
    said = capsys.readouterr().err
    assert said.startswith("s4: a run must be over to be deleted, second is in progress")
    assert said.count("\n") == 1


def test_nobody_deletes_without_being_asked(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert storage.s4("delete", "first") == 2
    assert (storage.folder / "first").exists()


@pytest.mark.parametrize(("answer", "kept"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_the_answer_decides(answer: str, kept: bool, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert storage.s4("delete", "first") == (1 if kept else 0)
    assert (storage.folder / "first").exists() == kept


@pytest.mark.parametrize("name", ["photos", "../runs", "linked", "nothing"])
def test_what_is_no_run_is_never_deleted(name: str, storage: Storage) -> None:
    (storage.folder / "photos").mkdir()
    (storage.folder / "photos" / "mine.png").touch()
    shutil.copytree(storage.folder / "first", storage.folder.parent / "elsewhere")
    (storage.folder / "linked").symlink_to(storage.folder.parent / "elsewhere")
    before = storage.files()
    assert storage.s4("delete", name, "--yes") == 2
    assert storage.files() == before


def littered(storage: Storage) -> set[Path]:
    """Put what nobody needs, and what somebody does, beside each other; return what is to be removed."""
    first = storage.folder / "first"
    trials = read_ledger(first / LEDGER).trials
    kept = next(number for number, trial in trials.items() if trial.state == "COMPLETE")
    stopped = next(number for number, trial in trials.items() if trial.state == "PRUNED")
    litter = [
        checkpoint_folder(first / TRIALS, stopped) / LATEST, checkpoint_folder(first / TRIALS, 99_999) / LATEST,
        first / SESSIONS / "001" / "state.json", first / GANGS / "001" / "x", draft_name(first / "results.json"),
        draft_name(storage.folder / "half-deleted") / "run.yaml", storage.folder / "never-began" / LOCK,
    ]  # fmt: skip
    needed = [checkpoint_folder(first / TRIALS, kept) / LATEST, storage.folder / "photos" / "mine.png"]
    for path in (*litter, *needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return {*litter}


def test_garbage_is_removed_and_nothing_else(storage: Storage) -> None:
    litter = littered(storage)
    before = storage.files()
    assert storage.s4("gc", records=False) == 0
    assert before - storage.files() == litter
    assert not (storage.folder / "never-began").exists()


def test_a_dry_run_of_the_collection_removes_nothing(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    litter = littered(storage)
    before = storage.files()
    assert storage.s4("gc", "--dry-run", "--json", records=False) == 0
    assert storage.files() == before
    assert len(json.loads(capsys.readouterr().out)["leftovers"]) == len(litter)


def test_the_garbage_of_a_run_in_progress_stays(storage: Storage) -> None:
    litter = littered(storage)
    lock = Lock(storage.folder / "first" / LOCK)
    assert storage.s4("gc", records=False) == 0
    lock.release()
    assert {path for path in litter if "first" in path.parts} <= storage.files()
