"""Threads that read and decode files, all of a call's at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from trainers.errors import ConfigError

THREADS_VARIABLE = "S4_DECODING_THREADS"
"""Environment variable: how many of them; without it as many as the machine has CPUs, 8 at most."""


def in_threads(work: Callable[[int], object], indices: Sequence[int]) -> None:
    """Call work(index) for each; the first error in their order is raised and the rest is given up.

    One pool a call, so that no thread is left running for a fork to lose.

    Raises:
        ConfigError: the environment variable is no number of threads.
    """
    if indices:
        with ThreadPoolExecutor(min(thread_count(), len(indices))) as pool:
            deque(pool.map(work, indices), maxlen=0)


def thread_count() -> int:
    """Return how many threads may decode at once: S4_DECODING_THREADS, or the CPUs of the machine, 8 at most.

    Raises:
        ConfigError: the variable is not a whole number from 1 on.
    """
    given = os.environ.get(THREADS_VARIABLE)
    if given is None:
        return min(8, os.cpu_count() or 1)
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"{THREADS_VARIABLE} must be a whole number from 1 on, got {given!r}: set it or unset it")
    return int(given)
