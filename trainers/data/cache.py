"""Decoded images in memory, within a limit in bytes that all sources of a process share.

How much is kept changes no result, only how often a file is decoded, so it is an environment variable and no field of
a config: S4_CACHE_GIB, in GiB a process; 0 keeps nothing.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict, deque
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from trainers.errors import ConfigError

LIMIT_VARIABLE = "S4_CACHE_GIB"
SHARE_OF_MEMORY = 4
"""Without the variable, the local ranks together keep at most one part in this many of the memory that is free."""

Decoded = tuple[Tensor, Tensor]
"""Image uint8 [3, h, w] and labels uint8 [h, w]."""


class ImageCache:
    """Decoded images of all sources, the least recently used dropped first; safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        """Args: limit: Bytes."""
        self.limit = limit
        self._lock = threading.Lock()
        self._images: OrderedDict[tuple[int, int], Decoded] = OrderedDict()
        self._released: deque[tuple[int, int]] = deque()
        self._used = 0
        self._reserved = 0

    @property
    def used(self) -> int:
        """Bytes that are kept or reserved."""
        with self._lock:
            self._drop_released()
            return self._used + self._reserved

    def get(self, source: int, index: int) -> Decoded | None:
        """Return what is kept of an image of a source, which counts as a use."""
        with self._lock:
            decoded = self._images.get((source, index))
            if decoded is not None:
                self._images.move_to_end((source, index))
            return decoded

    def put(self, source: int, index: int, decoded: Decoded) -> None:
        """Keep an image; those used least recently are dropped for it. One larger than the limit is not kept."""
        size = _bytes(decoded)
        with self._lock:
            if (source, index) in self._images or not self._evict(size):
                return
            self._images[source, index] = decoded
            self._used += size

    def reserve(self, size: int) -> bool:
        """Set bytes aside for a source that keeps its images itself; return whether they fit."""
        with self._lock:
            if not self._evict(size):
                return False
            self._reserved += size
            return True

    def release(self, source: int, reserved: int) -> None:
        """Forget a source that is gone, its images and the bytes it had reserved, as soon as room is needed.

        Takes no lock: the garbage collector may call this in the middle of any other method.
        """
        self._released.append((source, reserved))

    def _drop_released(self) -> None:
        while self._released:
            source, reserved = self._released.popleft()
            for key in [key for key in self._images if key[0] == source]:
                self._drop(self._images.pop(key))
            self._reserved -= reserved

    def _evict(self, size: int) -> bool:
        """Drop images until `size` more bytes fit; return whether they do."""
        self._drop_released()
        if size > self.limit - self._reserved:
            return False
        while self._used + size > self.limit - self._reserved:
            _, dropped = self._images.popitem(last=False)
            self._drop(dropped)
        return True

    def _drop(self, decoded: Decoded) -> None:
        self._used -= _bytes(decoded)


@lru_cache(maxsize=1)
def process_cache() -> ImageCache:
    """Return the cache of this process.

    Raises:
        ConfigError: S4_CACHE_GIB is not a number of at least 0.
    """
    return ImageCache(cache_limit())


def cache_limit() -> int:
    """Return how many bytes this process may keep: S4_CACHE_GIB, or its share of the memory that is free now.

    Raises:
        ConfigError: S4_CACHE_GIB is not a number of at least 0.
    """
    given = os.environ.get(LIMIT_VARIABLE)
    if given is None:
        ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
        return _free_memory() // SHARE_OF_MEMORY // (int(ranks) if ranks.isdigit() and int(ranks) else 1)
    try:
        gib = float(given)
    except ValueError:
        gib = math.nan
    if not 0 <= gib < math.inf:
        raise ConfigError(f"{LIMIT_VARIABLE} must be GiB of at least 0, got {given!r}: set it to a number or unset it")
    return int(gib * 2**30)


def _free_memory() -> int:
    """Return the bytes that this machine, or the container that this process is in, has to give."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    lines = _lines("/proc/meminfo")
    limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limits += [int(line) for line in _lines("/sys/fs/cgroup/memory.max") if line.strip().isdigit()]
    return min(limits)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _bytes(decoded: Decoded) -> int:
    return sum(part.numel() for part in decoded)
