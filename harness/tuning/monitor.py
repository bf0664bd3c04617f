"""Monitoring of a search while Tune's loop runs: the cluster's nodes, and the reasons to end it."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.search import ConcurrencyLimiter

from harness.formats import GIB
from harness.gangs.client import call_with_retry
from harness.gangs.pool import GangPool, NodeMonitor
from harness.ledger import Clock, Ledger
from harness.trials import INTERRUPTED
from harness.tuning.config import SearchConfig
from harness.tuning.searcher import TruthfulOptunaSearch
from harness.tuning.stopping import why_stop

FULL = 2**16
"""Bytes that are free on a disk that counts as full."""
LOOK_S = 1.0
"""Time between two looks at clock and disk."""
SPENT_S = 10.0
"""Time between two entries of the clock in the ledger: what a killed driver forgets of it at most."""


@dataclass(eq=False, repr=False)
class Monitor:
    """Called at every turn of Tune's loop.

    The first reason to end interrupts the search: trials are saved at their next step and leave. What has not left
    after `patience_s` is ended where it stands; its last checkpoint stays.
    """

    config: SearchConfig
    folder: Path
    dispatcher: Any
    pool: GangPool
    searcher: TruthfulOptunaSearch
    limiter: ConcurrencyLimiter
    ledger: Ledger
    clock: Clock
    interrupted: threading.Event
    reason: str | None = field(default=None, init=False)
    broken: bool = field(default=False, init=False)
    """Whether the reason is that the gangs cannot go on."""

    def __post_init__(self) -> None:
        self._nodes = NodeMonitor(self.dispatcher, self.pool)
        self._looked = self._wrote = float("-inf")
        self._deadline = float("inf")

    def check(self) -> None:
        """End the search once there is a reason to; every open trial then ends through the usual path.

        Raises:
            RayLostError: Ray is gone.
        """
        now = time.monotonic()
        self._nodes.check()
        if self.reason is not None:
            if now > self._deadline:
                self._deadline = float("inf")
                call_with_retry(self.dispatcher.abort, self.reason)
            return
        self.reason = self._urgent() or (self._limits(now) if now - self._looked >= LOOK_S else None)
        if self.reason is None:
            return
        self.searcher.finish()
        self.broken = self.pool.broken is not None
        if self.broken:
            call_with_retry(self.dispatcher.abort, self.reason)
        else:
            self._deadline = now + self.config.patience_s
            call_with_retry(self.dispatcher.interrupt, self.reason)

    def lose(self, loss: str) -> None:
        """Take in that Ray is gone. One that was told to end, too, as by SIGTERM to all, is part of an interruption."""
        self.reason, self.broken = (INTERRUPTED, False) if self.interrupted.is_set() else (loss, True)

    def close(self) -> None:
        """Write down what the session has cost."""
        self.ledger.spent(self.clock.elapsed_s, self.clock.device_s, self.clock.card_s)

    def _urgent(self) -> str | None:
        if shutil.disk_usage(self.folder).free < FULL:  # checkpoints are lost while the ledger's last page has room
            return f"the disk of {self.folder} is full: free some and resume"
        return INTERRUPTED if self.interrupted.is_set() else self.pool.broken or self.searcher.away

    def _limits(self, now: float) -> str | None:
        self._looked = now
        self.limiter.max_concurrent = self.pool.gangs
        self.clock.hold(self._nodes.held)
        if now - self._wrote >= SPENT_S:
            self._wrote = now
            self.ledger.spent(self.clock.elapsed_s, self.clock.device_s, self.clock.card_s)
        free = shutil.disk_usage(self.folder).free
        if free < self.config.min_free_gib * GIB:
            return (
                f"the disk of {self.folder} is nearly full, {free / GIB:.2f} GiB are free and "
                f"{self.config.min_free_gib:g} must be: free some and resume"
            )
        elapsed_s, device_s = self.clock.elapsed_s, self.clock.device_s
        return self.searcher.ask(lambda: why_stop(self.config, elapsed_s, device_s, self.searcher.study))
