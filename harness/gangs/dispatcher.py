"""The Dispatcher hands trials to gangs and carries reports and decisions between gangs and the search.

It is an async Ray actor, but `Dispatcher` itself knows nothing of Ray: tests drive it with asyncio alone. It imports
neither torch nor mlflow, so that its process starts quickly.

Lockstep: a gang's `report` returns only when the search has decided. The search decides by what it does next with the
trial: `next_report` means go on, `save` means save and wait, `cancel` means stop. The last report of a trial is held
back until the gang has said how the trial ended, so that a trial is never known as complete before it is.

Nothing in it is precious: where its process dies, Ray starts it anew and empty, the search submits its trials again,
and a gang that reports for a trial that is queued keeps it (`harness.gangs.client`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.gangs.messages import CONTINUE, LEAVE, MOVE, SAVE, STOP, Entry, GangRecord, Job, Report
from harness.start import Start


class Dispatcher:
    """Queue of trials, and one lockstep conversation a trial. One instance a search.

    Gangs may die and ask again, the search may cancel at any time; every method is safe for trials that are unknown or
    over, because the two sides learn of an end at different times.
    """

    meeting_timeout_s = 10.0
    """How long `meet` waits: ranks that raise together arrive within milliseconds."""
    adoption_s = 20.0
    """How long after its start a report for a trial that nobody submitted yet waits for the search to submit it."""
    max_starts = 5
    """How often in a row a gang may die while it warms up."""

    def __init__(
        self,
        max_trial_retries: int = 2,
        hang_timeout_s: float | None = None,
        kill: Callable[[Any], None] = lambda worker: None,
    ) -> None:
        # A gang that works for `hang_timeout_s` without a word (none: as long as it likes) has its workers ended by
        # `kill`: Ray Train starts them anew, and the trial is given out again.
        self._max_trial_retries, self._hang_timeout_s, self._kill = max_trial_retries, hang_timeout_s, kill
        self._guard: asyncio.Task[None] | None = None
        self._born = time.monotonic()
        self._trials: dict[str, Entry] = {}
        self._queue: deque[str] = deque()
        self._gangs: dict[int, GangRecord] = {}
        self._meetings: dict[str, list[asyncio.Future[bool]]] = {}
        self._changed = asyncio.Condition()
        self._start = Start()
        self._interrupted = self._closed = False
        self._end_reason: str | None = None
        self._close_reason: str | None = None

    # ---- called by the search

    async def submit(self, job: Job) -> None:
        """Queue a trial; the first gang that is free takes it."""
        self._start.mark("submitted")
        entry = self._trials[job.trial] = Entry(replace(job, submitted_unix=time.time()), last_step=job.last_step)
        if self._end_reason is not None:
            self._end(entry, Report({}, self._end_reason, interrupted=True))
            return
        self._queue.append(job.trial)
        await self._notify()

    async def next_report(self, trial: str) -> Report:
        """Say "go on" to the report that was fetched before, if any, and wait for the next."""
        entry = self._trials[trial]
        self._decide(entry, LEAVE if self._interrupted else CONTINUE)
        report, entry.undecided = await entry.reports.get()
        return report

    async def save(self, trial: str) -> str | None:
        """Have the gang, which waits for a decision, save its state; return the file, or none if it cannot."""
        entry = self._trials.get(trial)
        if entry is None or entry.undecided is None:
            return None
        entry.saving = asyncio.get_running_loop().create_future()
        self._decide(entry, SAVE)
        return await entry.saving or None

    async def cancel(self, trial: str) -> None:
        """End a trial from the search's side: dropped if it is queued, told to stop if it is on a gang."""
        entry = self._trials.get(trial)
        if entry is None:
            return
        entry.cancelled = True
        self._give_up_saving(entry)  # HyperBand stops a trial that it has paused a moment ago and that is being saved
        self._decide(entry, STOP)
        while not entry.reports.empty():  # a report that nobody will fetch any more
            _, waiting = entry.reports.get_nowait()
            if waiting is not None and not waiting.done():
                waiting.set_result(STOP)
        if entry.ended or entry.gang is None:
            del self._trials[trial]

    async def drop(self, trial: str) -> None:
        """Cancel every job of a trial: it is over, whatever ended it."""
        for key in [key for key in self._trials if key.partition("#")[0] == trial]:
            await self.cancel(key)

    async def interrupt(self, reason: str) -> None:
        """End the session in order: trials on gangs are saved at their next step and leave, no other one starts."""
        self._end_reason = self._end_reason or reason
        self._interrupted = True
        for entry in list(self._trials.values()):
            if entry.cancelled or entry.ended:
                continue
            if entry.gang is None:
                self._end(entry, Report({}, self._end_reason, interrupted=True))
            self._decide(entry, LEAVE)
        await self.close()

    async def abort(self, reason: str) -> None:
        """End every trial that is not over now, wherever it stands; what it saved last stays."""
        self._end_reason = self._end_reason or reason
        self._interrupted = True
        for entry in list(self._trials.values()):
            if not entry.ended and not entry.cancelled:
                self._decide(entry, STOP)
                self._end(entry, Report({}, self._end_reason, interrupted=True))
        await self.close()

    async def close(self, reason: str | None = None) -> None:
        """Let gangs end: those that wait for a trial now, others after their trial. `reason`: why none can succeed."""
        self._closed = True
        self._close_reason = self._close_reason or reason
        await self._notify()

    async def close_reason(self) -> str | None:
        """Return what a gang gave as the reason to close; none where none did."""
        return self._close_reason

    async def trials_of(self, gang: int) -> int:
        """Return how many trials a gang was given so far."""
        return self._gang(gang).trials

    async def started(self) -> Start:
        """Return the stamps of the start that were noted here."""
        return self._start

    async def nodes_lost(self, nodes: Sequence[str]) -> None:
        """Put the trials of gangs with processes on these nodes at the queue's front; this is no retry."""
        for known in self._on(nodes):
            await self._recall(known, blame=False)
            known.workers, known.nodes = (), ()

    async def nodes_leaving(self, nodes: Sequence[str]) -> None:
        """Have the gangs with processes on these nodes save after their next step: the nodes will be gone soon."""
        for known in self._on(nodes):
            known.command = SAVE
        await self._notify()

    async def move(self, gang: int) -> None:
        """Have a gang save after its next step and start anew; its trial goes on then."""
        self._gang(gang).command = MOVE
        await self._notify()

    # ---- called by gangs

    async def note_start(self, stamps: Mapping[str, float], gang: int | None = None) -> None:
        """Take in stamps of a gang's start, or of what all gangs share."""
        self._start.note(stamps, gang)

    async def introduce(self, gang: int, workers: Sequence[Any], nodes: Sequence[str] = ()) -> None:
        """Learn which processes a gang has, and on which nodes; it is at work from now on."""
        known = self._gang(gang)
        known.workers, known.nodes, known.command = workers, nodes, ""
        self._to_work(gang)

    async def start_gang(self, gang: int) -> bool:
        """Return whether a gang that has just started is to go on; not if it keeps dying before it asks for a trial."""
        self._to_work(gang)
        known = self._gang(gang)
        known.starts += 1
        if known.starts > self.max_starts and not self._closed:
            why = f": {known.ailment}" if known.ailment else ""
            await self.close(f"gang {gang} died {self.max_starts} times in a row before it could train{why}")
        return not self._closed

    async def ail(self, gang: int, ailment: str) -> None:
        """Say why a process of a gang that has just started cannot be part of it."""
        self._gang(gang).ailment = ailment

    async def next_trial(self, gang: int) -> Job | None:
        """Wait for a trial, none: the gang is to end. A gang that was restarted is given its trial again."""
        known = self._gang(gang)
        known.starts = 0
        known.busy_since = None
        turn = known.turn = known.turn + 1
        again = self._lost_trial(gang)
        if again is not None:
            self._start.mark("trial", gang)
            known.trials += 1
            self._to_work(gang)
            return again
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._queue or self._closed or turn != known.turn)
            if turn != known.turn or self._closed:
                return None  # the caller died and its successor waits, or the search is over
            entry = self._trials.get(self._queue.popleft())
            if entry is None or entry.cancelled or entry.ended or entry.gang is not None:
                continue
            self._give(entry, gang)
            return entry.job

    async def report(self, gang: int, trial: str, metrics: Mapping[str, float]) -> str:
        """Deliver a report and wait for the decision; steps that a predecessor reported are passed over."""
        self._to_work(gang)
        if "time/first_step_unix" in metrics:
            self._start.note({"first_step": metrics["time/first_step_unix"]}, gang)
        self._start.mark("report", gang)
        entry = await self._entry_of(gang, trial)
        if entry is None:
            return STOP
        if metrics.get("finished"):
            entry.final = dict(metrics)
            return STOP
        if metrics["step"] <= entry.last_step:
            return CONTINUE
        entry.last_step = int(metrics["step"])
        decision: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        entry.reports.put_nowait((Report(dict(metrics)), decision))
        return await self._decision(gang, decision)

    async def saved(self, gang: int, trial: str, file: str) -> str:
        """Say where the state was saved that `SAVE` asked for ("": it could not be), and wait for the decision."""
        entry = await self._entry_of(gang, trial)
        if entry is None:
            return STOP
        entry.undecided = decision = asyncio.get_running_loop().create_future()
        if entry.saving is not None and not entry.saving.done():
            entry.saving.set_result(file)
        return await self._decision(gang, decision)

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

    async def left(self, gang: int, trial: str) -> None:
        """Say that the trial was saved and left, because the search was interrupted."""
        entry = self._leave(gang, trial)
        if entry is not None:
            self._end(entry, Report({}, self._end_reason or "interrupted", interrupted=True))

    async def fail(self, gang: int, trial: str, error: str) -> None:
        """Say that `train` raised."""
        entry = self._leave(gang, trial)
        if entry is not None:
            self._end(entry, Report({}, error))

    async def moved(self, gang: int, trial: str) -> None:
        """Say that the trial was saved and left because the gang starts anew: it goes on, first of all."""
        entry = self._leave(gang, trial)
        if entry is not None:
            await self._requeue(entry)

    async def next_command(self, gang: int) -> str:
        """Wait for the search's LEAVE, MOVE or SAVE; return "" where another process has taken the gang's place."""
        known = self._gang(gang)
        known.subscribers += 1
        mine = known.subscribers
        async with self._changed:
            await self._changed.wait_for(lambda: self._interrupted or known.command or mine != known.subscribers)
        if mine != known.subscribers:
            return ""
        command, known.command = LEAVE if self._interrupted else known.command, ""
        return command

    async def meet(self, trial: str, ranks: int) -> bool:
        """Wait for all ranks of a gang after a trial raised; whether all came, so that none waits in a collective."""
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

    # ---- inside: trials and gangs

    def _gang(self, gang: int) -> GangRecord:
        return self._gangs.setdefault(gang, GangRecord())

    def _give(self, entry: Entry, gang: int) -> None:
        entry.gang = gang
        self._start.mark("trial", gang)
        known = self._gang(gang)
        known.trial = entry.job.trial
        known.trials += 1
        self._to_work(gang)

    async def _entry_of(self, gang: int, trial: str) -> Entry | None:
        """Return the trial if this gang trains it; a trial in the queue goes to the gang that is found training it."""
        young_s = self.adoption_s - (time.monotonic() - self._born)
        if trial not in self._trials and self._gang(gang).trial is None and young_s > 0:
            async with self._changed:  # after a restart of this actor, gangs may be heard before the search
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait_for(lambda: trial in self._trials), young_s)
        entry = self._trials.get(trial)
        if entry is None or entry.ended or entry.cancelled:
            return None
        if entry.gang is None and self._gang(gang).trial is None:
            self._give(entry, gang)
        return entry if entry.gang == gang else None

    def _lost_trial(self, gang: int) -> Job | None:
        """Return the trial that a gang which asks for one still has: it died on it."""
        trial = self._gang(gang).trial
        if trial is None:
            return None
        entry = self._trials.get(trial)
        if entry is None or entry.cancelled or entry.ended or not self._may_retry(entry):
            self._leave(gang, trial)
            return None
        return entry.job

    def _may_retry(self, entry: Entry) -> bool:
        """Count a lost gang against its trial; end the trial if that was one too many."""
        lost = entry.job.retry + 1
        entry.job = replace(entry.job, retry=lost)
        self._give_up_saving(entry)
        if lost <= self._max_trial_retries:
            return True
        self._end(entry, Report({}, f"the gang was lost {lost} times on this trial: given up after {lost - 1} retries"))
        return False

    def _leave(self, gang: int, trial: str) -> Entry | None:
        """Take the trial off the gang; return it if the search still waits for its end."""
        if self._gang(gang).trial == trial:
            self._gang(gang).trial = None
        entry = self._trials.get(trial)
        if entry is None or entry.gang != gang:
            return None
        entry.gang = None
        if entry.cancelled:
            del self._trials[trial]
            return None
        return None if entry.ended else entry

    async def _decision(self, gang: int, decision: asyncio.Future[str]) -> str:
        """Wait for the search; the gang need not give signs of life meanwhile."""
        self._gang(gang).busy_since = None
        decided = await decision
        self._to_work(gang)
        return decided

    @staticmethod
    def _decide(entry: Entry, decision: str) -> None:
        if entry.undecided is not None and not entry.undecided.done():
            entry.undecided.set_result(decision)
        entry.undecided = None

    @staticmethod
    def _end(entry: Entry, last: Report) -> None:
        entry.ended = True
        Dispatcher._give_up_saving(entry)
        entry.reports.put_nowait((last, None))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # ---- inside: gangs that hang or are lost

    def _to_work(self, gang: int) -> None:
        self._gang(gang).busy_since = time.monotonic()
        if self._hang_timeout_s is not None and self._guard is None:
            self._guard = asyncio.ensure_future(self._watch_gangs(self._hang_timeout_s))

    async def _watch_gangs(self, timeout_s: float) -> None:
        while True:
            await asyncio.sleep(min(timeout_s / 4, 5.0))
            for known in self._gangs.values():
                if known.busy_since is not None and time.monotonic() - known.busy_since > timeout_s:
                    await self._recall(known)

    async def _recall(self, known: GangRecord, blame: bool = True) -> None:
        """Kill what is left of a gang, which may never come back, and queue its trial first; `blame`: as a retry."""
        known.busy_since = None
        entry = self._trials.get(known.trial) if known.trial is not None else None
        known.trial = None
        for worker in known.workers:
            self._kill(worker)
        if entry is None:
            return
        entry.gang = None
        if entry.cancelled:
            del self._trials[entry.job.trial]
        elif not entry.ended and (not blame or self._may_retry(entry)):
            await self._requeue(entry)

    async def _requeue(self, entry: Entry) -> None:
        self._give_up_saving(entry)
        self._queue.appendleft(entry.job.trial)
        await self._notify()

    @staticmethod
    def _give_up_saving(entry: Entry) -> None:
        if entry.saving is not None and not entry.saving.done():
            entry.saving.set_result("")

    def _on(self, nodes: Sequence[str]) -> list[GangRecord]:
        return [known for known in self._gangs.values() if set(known.nodes) & set(nodes)]
