"""The one thread that talks to MLflow: takes operations in order, applies them, and insists.

MLflow is imported here, for that takes seconds, and everything slow or broken about a tracking server stays here.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.tracking.outbox import Operation, Outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0

log = logging.getLogger(__name__)

Apply = Callable[[Operation], None]


class Courier:
    """Applies operations in a daemon thread; the first that cannot reach MLflow is retried until it can, or `close`."""

    def __init__(self, outbox: Outbox, connect: Callable[[], Apply]) -> None:
        """Start the thread. `connect` is called in it, and returns what applies an operation."""
        self.applied = 0
        self.rejected = 0
        self.last_error: str | None = None
        self._outbox = outbox
        self._connect = connect
        self._apply: Apply | None = None
        self._queue: queue.SimpleQueue[tuple[Operation, int] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name="s4-tracking", daemon=True)
        self._thread.start()

    def send(self, operation: Operation, line: int) -> None:
        """Hand over the operation that the outbox holds as its `line`-th; returns at once."""
        self._queue.put((operation, line))

    def close(self, timeout_s: float) -> bool:
        """Wait at most this long until everything is applied, stop, and return whether it was."""
        self._queue.put(None)
        self._closing.set()
        self._thread.join(timeout_s)
        self._abandoned.set()
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            operation, line = item
            if not self._insist(operation):
                return
            self._outbox.mark_done(line)

    def _insist(self, operation: Operation) -> bool:
        """Apply the operation, retrying; return false when told to give up."""
        wait_s = FIRST_WAIT_S
        while not self._abandoned.is_set():
            try:
                if self._apply is None:
                    self._apply = self._connect()
                self._apply(operation)
                self.applied += 1
                return True
            except Exception as error:
                self.last_error = " ".join(str(error).split())[:300]
                if _is_refusal(error):
                    self.rejected += 1
                    log.warning("MLflow refused %s: %s", operation["op"], self.last_error)
                    return True
                log.debug("MLflow cannot be reached, retrying: %s", self.last_error)
            (self._abandoned if self._closing.is_set() else self._closing).wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S) if not self._closing.is_set() else FIRST_WAIT_S
        return False


def connect_client(tracking_uri: str) -> MlflowClient:
    """Return a client; imports MLflow, and keeps its chatter about creating tables off the terminal."""
    for name in ("alembic", "mlflow.store", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri)


def _is_refusal(error: Exception) -> bool:
    """Return whether MLflow will refuse the same operation again: it was understood, and it is wrong."""
    if isinstance(error, TypeError | KeyError | AttributeError | ValueError):
        return True
    status = getattr(error, "get_http_status_code", None)
    return status is not None and 400 <= status() < 500 and status() not in (401, 403, 408, 429)
