"""Messages between the search, the Dispatcher and the gangs, and the Dispatcher's records of trials and gangs."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.cluster import WorkerResources
    from harness.trials import Experiment, Value

CONTINUE = "continue"
STOP = "stop"
"""The search's decisions, as `trainers.run.Decision` spells them."""
LEAVE = "leave"
"""Save and stop: the search is interrupted, and the trial goes on another time."""
SAVE = "save"
"""Save, then ask again: the search wants to come back to this very step, or the gang's node will be gone soon."""
MOVE = "move"
"""Save and stop: the gang starts anew, with more workers or elsewhere, and the trial goes on then."""


@dataclass(frozen=True)
class GangSpec:
    """Everything a worker needs to know to be part of a gang."""

    gang: int
    dispatcher: Any
    """Handle of the Dispatcher actor."""
    experiment: Experiment
    resources: WorkerResources
    """What each worker has."""
    save_interval_s: float
    """Least time between two saves of a trial; 0 saves at every report."""
    recycle_after: int = 0
    """Trials after which the gang ends, to be started anew; 0: never."""


@dataclass(frozen=True)
class Job:
    """A trial as a gang receives it."""

    trial: str
    """Key of the trial, unique in the search; what follows a `#` tells its jobs from each other."""
    overrides: Mapping[str, Value]
    checkpoint_dir: str
    """Absolute path that every node sees; the gang keeps the trial's checkpoint there."""
    config_hash: str
    """Hash of the config that the search meant; empty where the search could not resolve it."""
    submitted_unix: float = 0.0
    """Wall clock of the submission, seconds."""
    retry: int = 0
    """How often a gang was lost on this trial."""
    last_step: int = -1
    """Step of the last report that the search has had: it is not told of earlier ones again."""


@dataclass(frozen=True)
class Report:
    """What the search receives: metrics, or the reason why the trial failed or went no further."""

    metrics: Mapping[str, float]
    error: str | None = None
    interrupted: bool = False
    """The trial did not fail: it can go on from its checkpoint in another session."""


@dataclass
class Entry:
    """One trial that is queued, or on a gang, or whose last report was not fetched yet."""

    job: Job
    reports: asyncio.Queue[tuple[Report, asyncio.Future[str] | None]] = field(default_factory=asyncio.Queue)
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
    ailment: str = ""
    """Why a process of it last died before the gang was one."""
    trials: int = 0
    """How many trials it was given."""
    workers: Sequence[Any] = ()
    """Handles of its processes, by rank."""
    nodes: Sequence[str] = ()
    """Ids of the nodes that they are on, by rank."""
    command: str = ""
    """What the search has to say to it before its next report; "" where it has been told, or there is nothing."""
    subscribers: int = 0
    """Number of its calls for a command: an earlier one comes from a process that died."""
    busy_since: float | None = None
    """Monotonic clock at which it last had its say before it went to work; none while it waits."""


def in_a_line(error: BaseException) -> str:
    """Return what an error says, without its traceback."""
    return " ".join("".join(traceback.format_exception_only(error)).split())
