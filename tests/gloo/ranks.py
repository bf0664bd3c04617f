"""Spawned processes that form gloo groups and call functions, all at once."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import multiprocessing

LIMIT_S = 120
"""Of a call, and of starting: reading PyTorch from a cold disk for several processes can take most of it."""


class Processes:
    """Processes that form groups of any size: starting one takes longer than most tests do, a group is formed at once.

    A group is made of the first processes; those that it needs and that are not there yet are started.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._meetings = count()
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        self._formed = 0

    def call(self, world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call on every rank. A rank that fails or takes too long ends all, as the others may wait for it forever."""
        if len(self._processes) < world_size:
            self._start(world_size)
        if self._formed != world_size:
            meeting = f"file://{self._folder / f'meeting-{next(self._meetings)}'}"
            self._ask(world_size, [(_join, (meeting, rank, world_size)) for rank in range(world_size)])
            self._formed = world_size
        return self._ask(world_size, [(function, arguments)] * world_size)

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._connections, self._formed = [], [], 0

    def _start(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        for _ in range(len(self._processes), count):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(mine)

    def _ask(self, world_size: int, calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
        for connection, call in zip(self._connections, calls, strict=False):
            connection.send(call)
        return self._results(world_size)

    def _results(self, world_size: int) -> list[Any]:
        deadline = time.monotonic() + LIMIT_S
        results: dict[int, Any] = {}
        while len(results) < world_size:
            for rank, connection in enumerate(self._connections[:world_size]):
                if rank not in results and connection.poll(0.01):
                    results[rank] = self._receive(rank, connection)
            if time.monotonic() > deadline:
                self._show_stacks()
                self.close()
                raise TimeoutError(f"of {world_size} ranks only {sorted(results)} answered in {LIMIT_S} s")
        return [results[rank] for rank in range(world_size)]

    def _receive(self, rank: int, connection: Connection) -> Any:
        try:
            done, payload = connection.recv()
        except EOFError:
            done, payload = False, "the process died"
        if not done:
            self.close()
            raise RuntimeError(f"rank {rank}: {payload}")
        return pickle.loads(payload)  # noqa: S301 - from our own process

    def _show_stacks(self) -> None:
        for process in self._processes:
            os.kill(process.pid, signal.SIGUSR1)
        time.sleep(1)


class Ranks(NamedTuple):
    """`call(f, ...)` returns [f(...) of rank 0, f(...) of rank 1, ...]; f must be importable."""

    world_size: int
    processes: Processes

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call on every rank of a group of this size."""
        return self.processes.call(self.world_size, function, *arguments)


def _join(meeting: str, rank: int, world_size: int) -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world_size, timeout=timedelta(seconds=LIMIT_S)
    )


def _serve(connection: Connection) -> None:
    faulthandler.register(signal.SIGUSR1)
    torch.set_num_threads(1)
    while True:
        function, arguments = connection.recv()
        try:
            # As bytes: tensors would otherwise travel through shared memory that ends with this process.
            connection.send((True, pickle.dumps(function(*arguments))))
        except Exception:
            connection.send((False, traceback.format_exc()))
