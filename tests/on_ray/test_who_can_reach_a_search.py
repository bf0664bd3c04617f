"""Who can reach a search on one machine: what listens, on which interface, and what it answers without the token."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from drivers import start_driver

README = Path(__file__).parents[2] / "harness" / "gangs" / "README.md"
LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
STRANGER = """
import sys
from harness.connection import ray_session
with ray_session(sys.argv[1]):
    print("let in")
"""


class Listener(NamedTuple):
    """A port that listens."""

    process: str
    address: str
    port: int
    answer: str
    """To a request over HTTP without the token."""


class Search(NamedTuple):
    """A running search."""

    listeners: list[Listener]
    home: Path
    storage: Path


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    storage = tmp_path_factory.mktemp("reach")
    home = storage / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        driver = start_driver(storage, "reach", 1, step_s=60.0, address="local")
    deadline = time.monotonic() + 240
    before: list[Listener] = []
    try:
        # How many ports listen depends on Ray and on the CPUs: all do once no more come.
        while not (begun := list(storage.glob("searches/reach/gangs/*/gang-0"))) or before != _listeners(driver.pid):
            assert (driver.poll(), time.monotonic() < deadline) == (None, True), (storage / "driver.log").read_text()
            before = _listeners(driver.pid) if begun else []
            time.sleep(3)
        yield Search(_listeners(driver.pid, ask=True), home, storage)
    finally:
        driver.kill()
        driver.wait()


def _listeners(driver: int, ask: bool = False) -> list[Listener]:
    found = []
    for process in (psutil.Process(driver), *psutil.Process(driver).children(recursive=True)):
        try:
            name = _name_of(process, driver)
            found += [
                Listener(name, at.laddr.ip, at.laddr.port, _answer(at.laddr.port) if ask else "")
                for at in process.net_connections("inet")
                if at.status == psutil.CONN_LISTEN
            ]
        except psutil.NoSuchProcess:
            continue
    return found


def _name_of(process: psutil.Process, driver: int) -> str:
    if process.pid == driver:
        return "driver"
    words = " ".join(process.cmdline())
    for part, name in {"monitor.py": "autoscaler's monitor", "dashboard.py": "dashboard's API",
                       "gcs_server": "GCS", "raylet/raylet": "raylet", "DashboardAgent": "dashboard agent",
                       "RuntimeEnvAgent": "runtime env agent"}.items():  # fmt: skip
        if part in words:
            return name
    return "workers" if words.startswith("ray::") else words


def _answer(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            return "metrics" if response.read(6) == b"# HELP" else "something"
    except urllib.error.HTTPError as error:
        return "refused" if error.code == 401 else f"HTTP {error.code}"
    except Exception:  # urllib's word for a server of gRPC
        return "gRPC"


def test_nothing_listens_on_an_interface_that_others_reach(search: Search) -> None:
    assert {listener.address for listener in search.listeners} <= LOOPBACK


def test_the_table_of_the_readme_lists_what_listens_and_what_it_answers(search: Search) -> None:
    rows = [line.strip("| \n").split(" | ") for line in README.read_text().splitlines() if line.startswith("| ")]
    told = {(row[0], row[1]) for row in rows if len(row) == 3 and row[1] in ("gRPC", "HTTP", "HTTP, metrics")}
    names = {"gRPC": "gRPC", "refused": "HTTP", "metrics": "HTTP, metrics"}
    found = {(listener.process, names.get(listener.answer, listener.answer)) for listener in search.listeners}
    assert found == told


@pytest.mark.parametrize("token", [None, "f" * 64])
def test_nobody_is_let_in_without_the_token(search: Search, token: str | None) -> None:
    [gcs] = [listener.port for listener in search.listeners if listener.process == "GCS"]
    environment = (
        {"RAY_AUTH_MODE": "disabled"} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    )
    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER, f"127.0.0.1:{gcs}"], env={**os.environ, **environment}, timeout=120,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (stranger.returncode, stranger.stdout) == (1, "")
    assert "UsageError" in stranger.stderr.splitlines()[-1]


def test_the_token_is_the_users_alone_and_in_no_file_of_the_search(search: Search) -> None:
    file = search.home / ".ray" / "auth_token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_bytes()
    written = [path for path in search.storage.rglob("*") if path.is_file() and path != file]
    assert [path for path in written if token in path.read_bytes()] == []
