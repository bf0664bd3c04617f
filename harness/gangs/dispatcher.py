"""The Dispatcher hands trials to gangs and carries reports and decisions between gangs and the search.

It is an async Ray actor, but `Dispatcher` itself knows nothing of Ray: tests drive it with asyncio alone. It imports
neither torch nor mlflow, so that its process starts quickly.

Lockstep: a gang's `report` returns only when the search has decided. The search decides by what it does next with the
trial: `next_report` means go on, `cancel` means stop. The last report of a trial is held back until the gang has said
how the trial ended, so that a trial is never known as complete before it is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from harness.trials import Value

CONTINUE = "continue"
STOP = "stop"
"""The two decisions, as `trainers.run.Decision` spells them."""


@dataclass(frozen=True)
class Job:
    """A trial as a gang receives it."""

    trial: str
    """Key of the trial, unique in the search."""
    overrides: Mapping[str, Value]
    checkpoint_dir: str
    """Absolute path that every node sees; the gang keeps the trial's checkpoint there."""
    config_hash: str
    """Hash of the config that the search meant; empty where the search could not resolve it."""
    submitted_unix: float = 0.0
    """Wall clock of the submission, seconds."""
    retry: int = 0
    """How often a gang was lost on this trial."""


@dataclass(frozen=True)
class Report:
    """What the search receives: metrics, or the reason why the trial failed."""

    metrics: Mapping[str, float]
    error: str | None = None


@dataclass
class _Entry:
    """One trial that is queued, or on a gang, or whose last report was not fetched yet."""

    job: Job
    outbox: asyncio.Queue[tuple[Report, asyncio.Future[str] | None]] = field(default_factory=asyncio.Queue)
    undecided: asyncio.Future[str] | None = None
    """What the gang waits for; set while the search holds a report that it has not decided on."""
    gang: int | None = None
    last_step: int = -1
    final: Mapping[str, float] | None = None
    cancelled: bool = False
    ended: bool = False


class Dispatcher:
    """Queue of trials, and one lockstep conversation a trial. One instance a search.

    Gangs may die and ask again, the search may cancel at any time; every method is safe for trials that are unknown or
    over, because the two sides learn of an end at different times.
    """

    meeting_timeout_s = 10.0
    """How long `meet` waits: ranks that raise together arrive within milliseconds."""

    max_starts = 5
    """How often in a row a gang may die while it warms up."""

    def __init__(self, max_trial_retries: int = 2) -> None:
        self._max_trial_retries = max_trial_retries
        self._trials: dict[str, _Entry] = {}
        self._queue: deque[str] = deque()
        self._on_gang: dict[int, str] = {}
        self._turn: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self._meetings: dict[str, list[asyncio.Future[bool]]] = {}
        self._changed = asyncio.Condition()
        self._closed = False
        self._abort_reason: str | None = None
        self._close_reason: str | None = None

    # ---- called by the search

    async def submit(self, job: Job) -> None:
        """Queue a trial; the first gang that is free takes it."""
        entry = self._trials[job.trial] = _Entry(replace(job, submitted_unix=time.time()))
        if self._abort_reason is not None:
            self._end(entry, Report({}, self._abort_reason))
            return
        self._queue.append(job.trial)
        async with self._changed:
            self._changed.notify_all()

    async def next_report(self, trial: str) -> Report:
        """Say "go on" to the report that was fetched before, if any, and wait for the next."""
        entry = self._trials[trial]
        self._decide(entry, CONTINUE)
        report, entry.undecided = await entry.outbox.get()
        return report

    async def cancel(self, trial: str) -> None:
        """End a trial from the search's side: dropped if it is queued, told to stop if it is on a gang."""
        entry = self._trials.get(trial)
        if entry is None:
            return
        entry.cancelled = True
        self._decide(entry, STOP)
        while not entry.outbox.empty():  # a report that nobody will fetch any more
            _, waiting = entry.outbox.get_nowait()
            if waiting is not None and not waiting.done():
                waiting.set_result(STOP)
        if entry.ended or entry.gang is None:
            del self._trials[trial]

    async def abort(self, reason: str) -> None:
        """Fail every trial that is not over, and those still to come, with `reason`; gangs close at their next call."""
        self._abort_reason = reason
        for entry in list(self._trials.values()):
            if not entry.ended and not entry.cancelled:
                self._decide(entry, STOP)
                self._end(entry, Report({}, reason))
        await self.close()

    async def close(self, reason: str | None = None) -> None:
        """Let gangs end: those that wait for a trial now, the others when their trial is over.

        Args:
            reason: why, where a gang closes because no trial could succeed.
        """
        self._closed = True
        self._close_reason = self._close_reason or reason
        async with self._changed:
            self._changed.notify_all()

    async def close_reason(self) -> str | None:
        """Return what a gang gave as the reason to close; none where none did."""
        return self._close_reason

    # ---- called by gangs

    async def start_gang(self, gang: int) -> bool:
        """Return whether a gang that has just started is to go on; not if it keeps dying before it asks for a trial."""
        self._starts[gang] = self._starts.get(gang, 0) + 1
        if self._starts[gang] > self.max_starts and not self._closed:
            await self.close(f"gang {gang} died {self.max_starts} times in a row before it could train")
        return not self._closed

    async def next_trial(self, gang: int) -> Job | None:
        """Wait for a trial. None means that the gang is to end.

        A gang that asks while it has a trial has been restarted, and is given that trial again until the retries are
        used up.
        """
        self._starts[gang] = 0
        turn = self._turn[gang] = self._turn.get(gang, 0) + 1
        again = self._lost_trial(gang)
        if again is not None:
            return again
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._queue or self._closed or turn != self._turn[gang])
            if turn != self._turn[gang] or self._closed:
                return None  # the caller died and its successor waits, or the search is over
            entry = self._trials.get(self._queue.popleft())
            if entry is None or entry.cancelled:
                continue
            entry.gang = gang
            self._on_gang[gang] = entry.job.trial
            return entry.job

    async def report(self, gang: int, trial: str, metrics: Mapping[str, float]) -> str:
        """Deliver a report and wait for the decision.

        Steps that were reported before (by a predecessor that died after its last checkpoint) are passed over.
        """
        entry = self._trials.get(trial)
        if entry is None or entry.ended or entry.cancelled or entry.gang != gang:
            return STOP
        if metrics.get("finished"):
            entry.final = dict(metrics)
            return STOP
        if metrics["step"] <= entry.last_step:
            return CONTINUE
        entry.last_step = int(metrics["step"])
        decision: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        entry.outbox.put_nowait((Report(dict(metrics)), decision))
        return await decision

    async def complete(self, gang: int, trial: str, config_hash: str) -> None:
        """Say that `train` returned: the trial is complete if it reported `finished` with the config that was meant."""
        entry = self._leave(gang, trial)
        if entry is None:
            return
        expected = entry.job.config_hash
        if config_hash != expected:
            error = f"the config that was trained has hash {config_hash!r}, the search meant {expected!r}"
            self._end(entry, Report({}, error))
        elif entry.final is None:
            self._end(entry, Report({}, "training returned before its horizon, without being told to stop"))
        else:
            self._end(entry, Report(entry.final))

    async def fail(self, gang: int, trial: str, error: str) -> None:
        """Say that `train` raised."""
        entry = self._leave(gang, trial)
        if entry is not None:
            self._end(entry, Report({}, error))

    async def meet(self, trial: str, ranks: int) -> bool:
        """Wait for all ranks of a gang after a trial raised; whether all came.

        They come when all raised: nobody is left waiting in a collective and the gang can go on.
        """
        waiting = self._meetings.setdefault(trial, [])
        here = asyncio.get_running_loop().create_future()
        waiting.append(here)
        if len(waiting) == ranks:
            del self._meetings[trial]
            for rank in waiting:
                rank.set_result(True)
        try:
            return await asyncio.wait_for(here, self.meeting_timeout_s)
        except TimeoutError:
            self._meetings.pop(trial, None)
            return False

    # ---- inside

    def _lost_trial(self, gang: int) -> Job | None:
        trial = self._on_gang.get(gang)
        if trial is None:
            return None
        entry = self._trials.get(trial)
        if entry is None or entry.cancelled or entry.ended:
            self._leave(gang, trial)
            return None
        entry.job = replace(entry.job, retry=entry.job.retry + 1)
        if entry.job.retry > self._max_trial_retries:
            self._leave(gang, trial)
            lost = entry.job.retry
            self._end(
                entry, Report({}, f"the gang was lost {lost} times on this trial: given up after {lost - 1} retries")
            )
            return None
        return entry.job

    def _leave(self, gang: int, trial: str) -> _Entry | None:
        """Take the trial off the gang; return it if the search still waits for its end."""
        if self._on_gang.get(gang) == trial:
            del self._on_gang[gang]
        entry = self._trials.get(trial)
        if entry is None or entry.gang != gang:
            return None
        entry.gang = None
        if entry.cancelled:
            del self._trials[trial]
            return None
        return None if entry.ended else entry

    @staticmethod
    def _decide(entry: _Entry, decision: str) -> None:
        if entry.undecided is not None and not entry.undecided.done():
            entry.undecided.set_result(decision)
        entry.undecided = None

    @staticmethod
    def _end(entry: _Entry, last: Report) -> None:
        entry.ended = True
        entry.outbox.put_nowait((last, None))


def start_dispatcher(max_trial_retries: int) -> Any:
    """Start the Dispatcher as an actor beside the driver: it must live exactly as long as the search."""
    here = ray.get_runtime_context().get_node_id()
    on_this_node = NodeAffinitySchedulingStrategy(here, soft=False)
    actor = ray.remote(num_cpus=0, max_concurrency=10_000)(Dispatcher)
    return actor.options(scheduling_strategy=on_this_node).remote(max_trial_retries)
