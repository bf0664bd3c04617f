"""Tells the gangs of a session what happens to the cluster's nodes: some die, some are about to, some join."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from harness.gangs.pool import GangPool
from harness.nodes import Census, census

LOOK_S = 1.0
"""Time between two looks at the cluster."""

log = logging.getLogger(__name__)


class NodeWatch:
    """Compares the cluster with what it was a moment ago. `look` is called often, from the driver's main thread."""

    def __init__(self, dispatcher: Any, pool: GangPool, look: Callable[[], Census] = census) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._census = look
        self._looked = time.monotonic()
        self._last = look()

    def look(self) -> None:
        """Take in what has changed, at most once a second.

        Trials on nodes that died go back to the queue, gangs on nodes that are leaving save, and the pool is told what
        the cluster can hold now.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        before, self._last = self._last, self._census()
        lost = sorted(before.ids - self._last.ids)
        if lost:
            log.warning("nodes lost: %s", ", ".join(node.address for node in before.nodes if node.id in lost))
            self._dispatcher.nodes_lost.remote(lost)
        leaving = sorted(self._last.leaving - before.leaving)
        if leaving:
            self._dispatcher.nodes_leaving.remote(leaving)
        self._pool.fit_to(self.slots)

    @property
    def slots(self) -> int:
        """How many workers the cluster could hold at the last look."""
        return self._last.slots(self._pool.unit)
