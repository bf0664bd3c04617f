"""A PostgreSQL of our own on this machine, as Debian's package `postgresql` installs it: made, started and ended."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "mlflow"
START_TIMEOUT_S = 60.0


def programs() -> Path | None:
    """Return the folder of the newest server's programs; none where there is no server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def lacking() -> str:
    """Return why no server can be started here; "" where one can."""
    if programs() is None:
        return "PostgreSQL's server is not installed (Debian: postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    if os.getuid() == 0 and (shutil.which("setpriv") is None or not _exists("postgres")):
        return "root cannot run PostgreSQL, and there is no setpriv or no user postgres"
    return ""


class Postgres:
    """Listens on a free port of 127.0.0.1 and lets its one user in without a password; databases are made on demand.

    Args:
        folder: of its files, which does not exist yet; root's server runs as the user postgres.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._data = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._programs = programs() or Path()
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._as_user = as_user if os.getuid() == 0 else []

    def start(self) -> None:
        """Make it, start it and wait until it takes connections."""
        self._data.mkdir(mode=0o700)
        if self._as_user:
            shutil.chown(self._data, "postgres", "postgres")
        self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {self.port} -h 127.0.0.1 -k {self._data} -F"
        command = [*self._as_user, str(self._programs / "postgres"), "-D", str(self._data), *options.split()]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        deadline = time.monotonic() + START_TIMEOUT_S
        ready = ["pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        while subprocess.run([str(self._programs / ready[0]), *ready[1:]], check=False, cwd="/").returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("PostgreSQL did not start")
            time.sleep(0.1)

    def database(self, name: str) -> str:
        """Make a database and return its URI, for SQLAlchemy with psycopg."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"

    def end(self) -> None:
        """End it, with all that it started."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # SIGTERM would wait until all clients have gone
            self._process.wait()
            self._process = None

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [*self._as_user, str(self._programs / program), *words], check=False, capture_output=True, text=True,
            cwd="/", env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")


@contextmanager
def serving(folder: Path) -> Iterator[Postgres]:
    """Yield a server whose files are below a folder of a test."""
    for parent in (folder, *folder.parents[:3]):  # the server may run as another user
        parent.chmod(parent.stat().st_mode | 0o011)
    server = Postgres(folder / "data")
    server.start()
    try:
        yield server
    finally:
        server.end()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
