"""Whatever is lost on the way, MLflow has everything once: a driver that dies after any operation, an answer that is
lost after any request, and a new process that sends the rest."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from recorded import Store, picture, play, trial

from harness.tracking import recorder, sender
from harness.tracking.outbox import Outbox
from harness.tracking.recorder import MlflowRecorder, replay
from harness.tracking.run_logger import HERE
from harness.trials import TrialState

OPERATIONS = 23
NOWHERE = "http://127.0.0.1:1"
DIES = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outbox with every kind of operation, of which MLflow has received none."""
    folder = tmp_path_factory.mktemp("scripted")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "connect_client", fail_to_connect)
        record = MlflowRecorder(NOWHERE, "s4", "search", "search-001", {"s4.preset": "p"}, folder / "outbox.jsonl",
                                params={"space": "s"})  # fmt: skip
        record.dataset("digits/dev", "0a1c", "digits", context="dev", profile={"images": 5})
        record.artifact("plan.yaml", "seeds: [0, 1]\n")
        play(record, 0, TrialState.COMPLETE, values=(0.2, 0.6, 0.5))
        record.file(folder / "picture.png", trial=0, folder="val")
        record.metrics({"val/miou": 0.4}, 30, trial=0)
        play(record, 1, TrialState.FAIL)
        record.on_start(trial(2))  # never ends
        record.tag({"s4.chosen": "no"}, trial=0)
        record.aggregate("mix", "mix", {"dev/mean": 0.5}, {"s4.n": 1}, {"method": "mix"}, step=1)
        record.tag({"s4.chosen": "yes"}, trial=0)
        record.note(f"[report]({HERE})")
        record.aggregate("mix", "mix", {"dev/mean": 0.6}, {"s4.n": 2}, {"method": "mix"}, step=2)
        record.close(timeout_s=0)
    assert record._outbox.count == OPERATIONS
    return folder


def fail_to_connect(_: str) -> MlflowClient:
    raise ConnectionError("nobody is there")


def copy(scripted: Path, store: Store, name: str) -> Path:
    """Return an outbox with the same operations in another experiment."""
    lines = (scripted / "outbox.jsonl").read_text().splitlines()
    location = (store.folder / "artifacts").as_uri()
    opening = {**json.loads(lines[0]), "experiment": name, "search_id": name, "artifact_location": location}
    outbox = store.folder / name / "outbox.jsonl"
    outbox.parent.mkdir(parents=True)
    outbox.write_text("\n".join([json.dumps(opening), *lines[1:]]) + "\n")
    return outbox


@pytest.fixture(scope="module")
def undisturbed(scripted: Path, uri: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = Store(uri, tmp_path_factory.mktemp("undisturbed"))
    assert replay(copy(scripted, store, "undisturbed"), uri).pending == 0
    return picture(store, "undisturbed")


def test_the_script_leaves_what_it_says(undisturbed: dict[str, Any]) -> None:
    assert {name: run["ended"][0] for name, run in undisturbed.items()} == {
        "search-001": "FINISHED", "trial-000": "FINISHED", "trial-001": "FAILED", "trial-002": "KILLED",
        "mix": "FINISHED",
    }  # fmt: skip
    values = [(step, value) for step, _, value in undisturbed["trial-000"]["histories"]["dev/miou"]]
    assert values == [(10, 0.2), (20, 0.6), (30, 0.5)]
    assert undisturbed["trial-000"]["artifacts"] == ["val", "val/picture.png"]
    assert undisturbed["trial-000"]["tags"]["s4.chosen"] == "yes"
    assert undisturbed["search-001"]["inputs"] == [("digits/dev", "0a1c")]


@DIES
@pytest.mark.parametrize("index", range(OPERATIONS))
def test_a_driver_that_dies_after_applying_an_operation_and_before_noting_it_changes_nothing(
    index: int, scripted: Path, undisturbed: dict[str, Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"died-{index}"
    outbox = copy(scripted, store, name)
    note = Outbox.mark_done

    def die(self: Outbox, count: int) -> None:
        if count > index:
            raise SystemExit
        note(self, count)

    monkeypatch.setattr(sender, "MERGED", 1)
    monkeypatch.setattr(Outbox, "mark_done", die)
    assert replay(outbox, store.uri).pending > 0
    monkeypatch.undo()
    assert replay(outbox, store.uri).pending == 0
    assert picture(store, name) == undisturbed


class Lossy:
    """A client whose `index`-th request is carried out, but its answer is lost."""

    def __init__(self, client: MlflowClient, index: int) -> None:
        self._client = client
        self._index = index
        self.requests = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def request(*args: object, **kwargs: object) -> Any:
            answer = method(*args, **kwargs)
            self.requests += 1
            if self.requests == self._index + 1:
                raise ConnectionError("the answer was lost")
            return answer

        return request


def test_an_answer_that_is_lost_after_any_request_changes_nothing(
    scripted: Path, undisturbed: dict[str, Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "FIRST_WAIT_S", 0.0)
    index, different = 0, []
    while True:
        name = f"lost-{index}"
        lossy = Lossy(store.client, index)
        monkeypatch.setattr(recorder, "connect_client", lambda _, lossy=lossy: lossy)
        assert replay(copy(scripted, store, name), store.uri).pending == 0
        if lossy.requests <= index:
            break
        if picture(store, name) != undisturbed:
            different.append(index)
        index += 1
    assert index > OPERATIONS
    assert different == []


@DIES
def test_the_command_sends_the_rest_from_a_process_of_its_own(
    scripted: Path, undisturbed: dict[str, Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = copy(scripted, store, "synced")
    note = Outbox.mark_done

    def die(self: Outbox, count: int) -> None:
        note(self, count)
        if count >= 9:
            raise SystemExit

    monkeypatch.setattr(sender, "MERGED", 4)
    monkeypatch.setattr(Outbox, "mark_done", die)
    replay(outbox, store.uri)
    monkeypatch.undo()
    command = [sys.executable, "-c", "from harness.cli.main import main; main()", "sync", "synced", "--storage"]
    done = subprocess.run(
        [*command, str(store.folder), "--tracking-uri", store.uri], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip().endswith("operations sent, 0 left"), done.stderr
    assert not done.stdout.startswith(("0 ", f"{OPERATIONS} "))
    assert picture(store, "synced") == undisturbed
    shutil.rmtree(outbox.parent)
