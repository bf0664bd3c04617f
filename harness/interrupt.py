"""Ctrl-C, or SIGTERM: the first one is an event that work looks at, the next one acts as usual."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = "interrupted"
"""Error of the trials that Ctrl-C ended."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what Slurm, Kubernetes and systemd send before they kill. (Tune takes SIGUSR1 for itself.)"""


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first interruption into an event; the next one acts as usual."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        restore()

    for number in SIGNALS:
        signal.signal(number, on_interrupt)
    try:
        yield interrupted
    finally:
        restore()
