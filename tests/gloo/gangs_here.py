"""A gang in the processes of a gloo group, without a Ray cluster: its Dispatcher is a thread of rank 0.

Everything but Ray's transport is the product's: the Dispatcher, the ranks' own group, the channel of commands.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from run_conformance import Body

from harness.gangs.dispatcher import Dispatcher
from harness.gangs.gang_run import ControlChannel, GangRun, Ranks
from harness.gangs.messages import Job
from trainers.run import Decision

PATIENCE_S = 60.0
TRIAL = "trial"
Search = Callable[[Dispatcher], Coroutine[Any, Any, None]]
"""What the search says to the Dispatcher while a gang trains `TRIAL`, which is submitted."""


class Reference(NamedTuple):
    """What calling an actor's method returns."""

    pending: Future[Any]

    def future(self) -> Future[Any]:
        return self.pending


class LocalActor:
    """An async actor in a thread of this process, called as Ray's are."""

    def __init__(self, instance: object) -> None:
        self._instance = instance
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        return SimpleNamespace(remote=lambda *arguments: Reference(self.run(method(*arguments))))

    def run(self, call: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine beside the actor's methods."""
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def end(self) -> None:
        """Give up every call that still waits."""
        self.run(_cancel_others()).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def gang_here() -> Iterator[Ranks]:
    """The ranks of this process group, or of this process alone, as Ray Train would describe them."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    place = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: size)
    here = SimpleNamespace(current_actor=f"worker {rank}", get_node_id=lambda: "node")
    with ExitStack() as stack:
        stack.enter_context(patch.object(ray.train, "get_context", lambda: place))
        stack.enter_context(patch.object(ray.train.torch, "get_device", lambda: torch.device("cpu")))
        stack.enter_context(patch.object(ray, "get_runtime_context", lambda: here))
        stack.enter_context(patch.object(ray, "get", lambda reference: reference.pending.result(PATIENCE_S)))
        yield Ranks()


def in_gang(body: Body, folder: Path, search: Search) -> Any:
    """Return body(run) of this rank, whose gang has been given a trial; `search` runs beside rank 0."""
    with gang_here() as ranks:
        dispatcher = LocalActor(Dispatcher()) if ranks.rank == 0 else None
        try:
            return body(_run_of_trial(ranks, dispatcher, folder, search))
        finally:
            ranks.from_rank_0(None)  # all ranks are here: nobody waits for a Dispatcher that is gone
            if dispatcher is not None:
                dispatcher.end()


def _run_of_trial(ranks: Ranks, dispatcher: LocalActor | None, folder: Path, search: Search) -> GangRun:
    channel, job = ControlChannel(dispatcher, 0), None
    if dispatcher is not None:
        ray.get(dispatcher.introduce.remote(0, ranks.workers, ranks.nodes))
        channel.subscribe()
        ray.get(dispatcher.submit.remote(Job(TRIAL, {}, str(folder), "hash")))
        job = ray.get(dispatcher.next_trial.remote(0))
        dispatcher.run(search(dispatcher._instance))
    return GangRun(ranks, dispatcher, 0, ranks.from_rank_0(job), save_interval_s=0, channel=channel)


async def answer(decisions: Sequence[Decision], dispatcher: Dispatcher) -> None:
    """Answer report n with decisions[n]; a trial that was stopped reports no more."""
    for decision in decisions:
        await dispatcher.next_report(TRIAL)
        if decision is Decision.STOP:
            return await dispatcher.cancel(TRIAL)
    await dispatcher.next_report(TRIAL)
    return None
