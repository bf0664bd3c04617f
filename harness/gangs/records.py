"""What the Dispatcher knows of a trial and of a gang."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.gangs.messages import Job, Report


@dataclass
class Entry:
    """One trial that is queued, or on a gang, or whose last report was not fetched yet."""

    job: Job
    outbox: asyncio.Queue[tuple[Report, asyncio.Future[str] | None]] = field(default_factory=asyncio.Queue)
    undecided: asyncio.Future[str] | None = None
    """What the gang waits for; set while the search holds a report that it has not decided on."""
    saving: asyncio.Future[str] | None = None
    """What the search waits for: the file that the gang is writing."""
    gang: int | None = None
    last_step: int = -1
    final: Mapping[str, float] | None = None
    cancelled: bool = False
    ended: bool = False


@dataclass
class GangRecord:
    """What is known of a gang."""

    trial: str | None = None
    turn: int = 0
    """Number of its calls for a trial: an earlier one comes from a process that died."""
    starts: int = 0
    """How often in a row it started without getting as far as asking for a trial."""
    trials: int = 0
    """How many trials it was given."""
    workers: Sequence[Any] = ()
    """Handles of its processes, by rank."""
    nodes: Sequence[str] = ()
    """Ids of the nodes that they are on, by rank."""
    word: str = ""
    """What the search has to say to it before its next report; "" where it has been told, or there is nothing."""
    listeners: int = 0
    """Number of its calls for a word: an earlier one comes from a process that died."""
    busy_since: float | None = None
    """Monotonic clock at which it last had its say before it went to work; none while it waits."""
