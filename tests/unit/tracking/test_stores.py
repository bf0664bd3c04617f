"""The same record in every kind of store that MLflow has, and what is said where it does not let us in."""

import importlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rich.console
from recorded import Store, picture, play, wait_until_refused

from harness import tracking
from harness.console import Console
from harness.run_folder import RunInfo
from harness.tracking import stores
from harness.tracking.recorder import MlflowRecorder, recording, replay
from harness.tracking.stores import SCHEMES, absolute_uri, artifact_location, silence
from harness.trials import TrialState
from trainers.errors import UsageError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from tracking_server import Server

pytestmark = pytest.mark.timeout(400)
PASSWORD = "correct-horse-battery"  # noqa: S105  # of a server that lives as long as its test
USER = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}


@pytest.fixture(scope="module")
def server(new_store: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    new_store(folder)
    server = Server(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def guarded(new_store: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows one user."""
    pytest.importorskip("flask_wtf", reason="MLflow's basic-auth app needs Flask-WTF")
    folder = tmp_path_factory.mktemp("guarded")
    new_store(folder)
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
        f"admin_password = {PASSWORD}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    settings = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test"}
    server = Server(folder, "basic-auth", settings)
    server.start()
    yield server
    server.kill()


def record(uri: str, folder: Path, experiment: str) -> MlflowRecorder:
    (folder / "picture.png").write_bytes(b"\x89PNG")
    recorder = MlflowRecorder(uri, experiment, "search", "search-001", {}, folder / "outbox.jsonl")
    recorder.dataset("digits/dev", "0a1c", "digits", context="dev")
    play(recorder, 0, TrialState.COMPLETE, values=(0.2, 0.6, 0.5))
    recorder.file(folder / "picture.png", trial=0, folder="val")
    recorder.artifact("space.yaml", "name: s\n")
    recorder.aggregate("mix", "mix", {"dev/mean": 0.5}, {"s4.n": 1}, {"method": "mix"})
    recorder.metrics({"val/miou": 0.4}, 30, trial=0)
    return recorder


def check(uri: str, folder: Path) -> None:
    """Record a search in a store, and find all of it there."""
    recorder = record(uri, folder, "all-stores")
    delivery = recorder.close(timeout_s=120)
    assert (delivery.pending, delivery.rejected, delivery.note) == (0, 0, None)
    seen = picture(Store(uri, folder), "all-stores")
    assert {name: run["ended"][0] for name, run in seen.items()} == dict.fromkeys(
        ("search-001", "trial-000", "mix"), "FINISHED"
    )
    assert values(seen["trial-000"], "dev/miou") == [(10, 0.2), (20, 0.6), (30, 0.5)]
    assert values(seen["trial-000"], "val/miou") == [(30, 0.4)]
    assert seen["trial-000"]["artifacts"] == ["val", "val/picture.png"]
    assert seen["search-001"]["artifacts"] == ["space.yaml"]
    assert seen["search-001"]["inputs"] == [("digits/dev", "0a1c")]


def values(run: dict[str, Any], metric: str) -> list[tuple[int, float]]:
    return [(step, value) for step, _, value in run["histories"][metric]]


def test_a_sqlite_file_takes_everything(uri: str, tmp_path: Path) -> None:
    check(uri, tmp_path)


def test_a_server_takes_everything(server: Server, tmp_path: Path) -> None:
    check(server.uri, tmp_path)


def test_a_folder_takes_everything_where_mlflow_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check((tmp_path / "mlruns").as_uri(), tmp_path)


def test_a_folder_that_mlflow_does_not_allow_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    for folder in ("mlruns", "file:///tmp/mlruns"):
        with pytest.raises(UsageError, match="MLFLOW_ALLOW_FILE_STORE=true"):
            absolute_uri(folder)


def test_a_server_with_users_takes_everything_from_one_it_knows(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in USER.items():
        monkeypatch.setenv(name, value)
    check(guarded.uri, tmp_path)


def test_a_wrong_password_keeps_the_records_says_what_to_do_and_sync_sends_them(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-wrong-secret")
    recorder = record(guarded.uri, tmp_path, "wrong")
    wait_until_refused(recorder)
    delivery = recorder.close(timeout_s=0)
    written = (tmp_path / "outbox.jsonl").read_text()
    assert delivery.pending == written.count("\n")
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in str(delivery.note)
    assert "\n" not in str(delivery.note)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert replay(tmp_path / "outbox.jsonl", guarded.uri, timeout_s=120).pending == 0
    found = str(picture(Store(guarded.uri, tmp_path), "wrong"))
    assert not [word for word in ("a-wrong-secret", PASSWORD) if word in written + found + str(delivery)]


@pytest.mark.parametrize(
    ("uri", "instead"),
    [
        ("https://me:hunter2@host:5000", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://me:hunter2@host/db", "PGPASSWORD"),
        ("mysql+pymysql://me:hunter/2@host:3306/db?charset=utf8", "read_default_file"),
    ],
)
def test_a_password_in_a_tracking_uri_is_refused_without_being_shown(uri: str, instead: str) -> None:
    with pytest.raises(UsageError, match=rf"must hold no password, .*{instead}") as refused:
        absolute_uri(uri)
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["https://host:5000/a@b", "postgresql://me@host:5432/db", "sqlite:////tmp/a:b@c/mlflow.db"]
)
def test_what_only_looks_like_a_password_is_taken(uri: str) -> None:
    assert absolute_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("htp://foo:5000", "did you mean http?"),
        ("localhost:5000", "did you mean http://?"),
        ("postgres://host/db", "did you mean postgresql?"),
        ("HTTP://host", "did you mean http?"),
        ("http:/host", "write http://HOST:PORT"),
        ("http://host:x", "write http://HOST:PORT"),
        ("https://host:99999", "write https://HOST:PORT"),
        ("sqlite://mlflow.db", "write sqlite:///FILE"),
        ("sqlite:///", "write sqlite:///FILE"),
        ("", "leave it out"),
    ],
)
def test_a_store_that_mlflow_does_not_have_is_refused_in_one_line(uri: str, hint: str) -> None:
    with pytest.raises(UsageError, match=r"^a tracking URI must be one of MLflow's[^\n]*$") as refused:
        absolute_uri(uri)
    assert hint in str(refused.value)


@pytest.mark.parametrize("content", [None, b"name: s"])
def test_a_folder_or_another_file_is_no_sqlite_store(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match=r"records must go to a SQLite database, .*mlflow\.db is none"):
        absolute_uri(f"sqlite:///{path}")


def test_a_database_whose_driver_is_not_installed_is_said() -> None:
    assert "postgresql.nodriver" in str(silence("postgresql+nodriver://me@host/db"))


def test_every_store_that_mlflow_has_is_taken() -> None:
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    assert set(SCHEMES) | {""} == set(_tracking_store_registry._registry)


@pytest.mark.parametrize("silent", [True, False])
def test_a_server_that_does_not_answer_is_said_at_the_start_and_the_run_goes_on(
    silent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "ANSWER_S", 0.2)
    info = RunInfo("train", "digits_css", {}, "", "dev/miou", 1, 1, "", {})
    out, close = io.StringIO(), MlflowRecorder.close
    with socket.socket() as there:  # takes connections and says nothing, or refuses them
        there.bind(("127.0.0.1", 0))
        if silent:
            there.listen()
        uri = f"http://127.0.0.1:{there.getsockname()[1]}"
        monkeypatch.setattr(MlflowRecorder, "close", lambda self, *_: close(self, timeout_s=0))
        with recording(tmp_path, info, uri, {}, Console(rich.console.Console(file=out, width=500), None)):
            said = out.getvalue()
    assert said.startswith(f"warning: {uri} does not answer (")
    assert said.count("\n") == 1


def test_a_server_that_answers_is_not_spoken_of(server: Server) -> None:
    assert silence(server.uri) is None
    assert silence(f"{server.uri}/elsewhere") is None


def test_a_relative_folder_means_the_same_folder_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert absolute_uri("mlruns") == (Path.cwd() / "mlruns").as_uri()
    assert artifact_location("mlruns") is None


@pytest.mark.parametrize("name", ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
def test_what_the_user_set_for_mlflow_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    importlib.reload(tracking)
    assert os.environ[name] == "1"


def test_who_does_not_talk_to_mlflow_does_not_import_it() -> None:
    modules = "harness.tracking.recorder, harness.tracking.pages, harness.models.find, harness.tuning.warm_start"
    code = f"import sys, {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
