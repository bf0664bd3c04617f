"""An MLflow server of our own on this machine: started, killed, and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from harness.tracking.stores import NO_JOBS

START_TIMEOUT_S = 180


class Server:
    """Listens on a free port of 127.0.0.1; one worker, artifacts through the server.

    Args:
        folder: of its database and artifacts.
        app: of MLflow's own, such as `basic-auth`.
        environment: besides this process's.
        store: URI of its database; default: a SQLite file in the folder.
    """

    def __init__(
        self,
        folder: Path,
        app: str | None = None,
        environment: Mapping[str, str] | None = None,
        store: str | None = None,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder, self._store = folder, store or f"sqlite:///{folder}/mlflow.db"
        self._app = ["--app-name", app] if app else []
        self._environment = {**NO_JOBS, **os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self._store,
            "--artifacts-destination", str(self._folder / "artifacts"), "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1", *self._app,
        ]  # fmt: skip
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                words, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True, env=self._environment,
                cwd=self._folder,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"the server did not start: {(self._folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.3)

    def kill(self) -> None:
        """End it at once, with all that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()  # noqa: S310  # our own
        except urllib.error.HTTPError:
            return True  # one that knows us not
        except OSError:
            return False
        return True
