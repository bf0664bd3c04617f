"""The signals that end a run: Ctrl-C, and what terminals, Slurm, Kubernetes and systemd send before they kill."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from harness.console import drop_lost_output

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Tune takes SIGUSR1 for itself."""


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Give the signals to a handler, except those that are ignored (`nohup`) and outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; a terminal that is gone is no longer written to.

    Raises:
        KeyboardInterrupt: always.
    """
    drop_lost_output()
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first interruption into an event; the next one raises KeyboardInterrupt."""
    interrupted = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            as_ctrl_c(number, frame)
        drop_lost_output()
        interrupted.set()

    with handling(on_interrupt):
        yield interrupted
