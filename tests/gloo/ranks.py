"""Spawned processes that form a gloo group and call functions, all at once."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

LIMIT_S = 120
"""Of a call, and of starting: reading PyTorch from a cold disk for two processes can take most of it."""


class Ranks:
    """`call(f, ...)` returns [f(...) of rank 0, f(...) of rank 1, ...]; f must be importable."""

    def __init__(self, world_size: int, folder: Path) -> None:
        self.world_size = world_size
        self._folder = folder
        self._rendezvous = count()
        self._processes: list[Any] = []
        self._connections: list[Connection] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call on every rank. A rank that fails or takes too long ends all, as the others may wait for it forever."""
        if not self._processes:
            self._start()
        for connection in self._connections:
            connection.send((function, arguments))
        return self._results()

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._connections = [], []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        meeting = f"file://{self._folder / f'rendezvous-{next(self._rendezvous)}'}"
        for rank in range(self.world_size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, self.world_size, meeting), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(mine)
        self._results()

    def _results(self) -> list[Any]:
        deadline = time.monotonic() + LIMIT_S
        results: dict[int, Any] = {}
        while len(results) < self.world_size:
            for rank, connection in enumerate(self._connections):
                if rank not in results and connection.poll(0.01):
                    results[rank] = self._receive(rank, connection)
            if time.monotonic() > deadline:
                self._show_stacks()
                self.close()
                raise TimeoutError(f"of {self.world_size} ranks only {sorted(results)} answered in {LIMIT_S} s")
        return [results[rank] for rank in range(self.world_size)]

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


def _serve(connection: Connection, rank: int, world_size: int, meeting: str) -> None:
    faulthandler.register(signal.SIGUSR1)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world_size, timeout=timedelta(seconds=LIMIT_S)
    )
    connection.send((True, pickle.dumps("ready")))
    while True:
        function, arguments = connection.recv()
        try:
            # As bytes: tensors would otherwise travel through shared memory that ends with this process.
            connection.send((True, pickle.dumps(function(*arguments))))
        except Exception:
            connection.send((False, traceback.format_exc()))
