"""Decoded images on a node's disk, shared by all of a user's processes there: what one decodes the others only read.

Each data set, decoded in one way, has a folder with two files: the pixels of all its images, one after the other, and
an index that says where each one lies. Pixels are written first, so what the index names is whole, whoever else writes
or is killed meanwhile. What is read often stays in the operating system's page cache, once for all processes, which
need no memory of their own.

How much is kept changes no result, only how often a file is decoded, so it is set by environment variables and by no
field of a config: S4_CACHE_GIB, in GiB a node (0 keeps nothing), and S4_CACHE_DIR, the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
import shutil
import stat
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import PIL

from trainers.drafts import opened
from trainers.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Buffer

LIMIT_VARIABLE = "S4_CACHE_GIB"
FOLDER_VARIABLE = "S4_CACHE_DIR"
SHARE = 2
"""Without S4_CACHE_GIB at most one part in this many of the memory and of the disk that are free is used."""
OLD_S = 3 * 24 * 3600.0
"""What no process has opened for so long is removed when a cache is opened; sooner where its room is needed."""
_PIXELS, _INDEX = "pixels", "index"
_ENTRY = struct.Struct("<16sqii")  # of the index: digest of the name, first byte, height and width

Decoded: TypeAlias = "tuple[Tensor, Tensor]"
"""Image uint8 [3, h, w] and labels uint8 [h, w]."""

log = logging.getLogger(__name__)


class NodeCache:
    """Images decoded in one way; safe to use from several threads and processes.

    What cannot be written (a full disk) is not kept: it is said once, and only what is there already is read from then
    on.
    """

    def __init__(self, root: Path, identity: str, limit: int) -> None:
        """Open a cache, and keep others from removing it as long as this object lives.

        Args:
            root: A folder of this user's; it holds a folder for each way of decoding.
            identity: Names the way of decoding; letters and digits.
            limit: Bytes of all files below the root.

        Raises:
            OSError: the root cannot be written.
        """
        self._root, self._folder, self._limit = root, root / identity, limit
        self._writes = limit > 0
        self._places: dict[bytes, tuple[int, int, int]] = {}  # first byte, height and width
        self._indexed = self._end = 0  # bytes of the index that were read, and of the pixels that it names
        self._reads_index = threading.Lock()
        with self._locked():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            hold = os.open(self._folder, os.O_RDONLY)
            weakref.finalize(self, os.close, hold)
            fcntl.flock(hold, fcntl.LOCK_SH)
            os.utime(self._folder)
            self._remove(older_s=OLD_S)

    def get(self, name: str) -> Decoded | None:
        """Return what is kept under a name, mapped into memory: whoever changes it changes no file."""
        key = _key(name)
        place = self._places.get(key) or self._read_index().get(key)
        if place is None:
            return None
        first, height, width = place
        import torch

        stored = torch.from_numpy(np.memmap(self._folder / _PIXELS, np.uint8, "c", first, (4, height, width)))
        return stored[:3], stored[3]

    def put(self, name: str, decoded: Decoded) -> None:
        """Keep an image under a name that says what it was decoded from, where there is room."""
        if not self._writes:
            return
        key, (height, width) = _key(name), decoded[1].shape
        size = 4 * height * width + _ENTRY.size
        try:
            with self._locked():
                if key in self._read_index():  # another process decoded it meanwhile
                    return
                if _used(self._root) + size > self._limit:
                    self._remove(older_s=0.0)
                if _used(self._root) + size > self._limit:
                    self._writes = False
                    return
                _append(self._folder / _PIXELS, self._end, *(part.contiguous().numpy().data for part in decoded))
                _append(self._folder / _INDEX, self._indexed, _ENTRY.pack(key, self._end, height, width))
        except OSError as error:
            self._writes = False
            _say(f"{error.strerror} in {self._folder}: no more images are kept")

    def _read_index(self) -> dict[bytes, tuple[int, int, int]]:
        """Read what was added to the index, by this process or another, since it was read last."""
        with self._reads_index, suppress(FileNotFoundError), (self._folder / _INDEX).open("rb") as file:
            file.seek(self._indexed)
            added = file.read()
            for key, first, height, width in _ENTRY.iter_unpack(added[: len(added) // _ENTRY.size * _ENTRY.size]):
                self._places[key] = first, height, width
                self._indexed, self._end = self._indexed + _ENTRY.size, first + 4 * height * width
        return self._places

    def _remove(self, older_s: float) -> None:
        """Remove the folders that no process holds, and that were opened longer ago than this."""
        for folder in self._root.iterdir():
            with suppress(OSError):  # it is held, or no folder
                if time.time() - folder.stat().st_mtime < older_s:
                    continue
                with opened(folder) as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep all others from opening, removing and counting."""
        file = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


@cache
def node_cache(identity: str) -> NodeCache | None:
    """Return this process's cache for a way of decoding; none where nothing is to be kept or nothing can be.

    Raises:
        ConfigError: S4_CACHE_GIB is not a number of at least 0.
    """
    given = given_limit()
    if given == 0:
        return None
    base = Path(os.environ.get(FOLDER_VARIABLE) or tempfile.gettempdir())
    try:
        root = _own_folder(base / f"s4-cache-{os.getuid()}")
        code = hashlib.blake2b(f"{identity} {_code_version()}".encode(), digest_size=16).hexdigest()
        return NodeCache(root, code, _share_of_free(root) if given is None else given)
    except OSError as error:
        _say(f"{error.strerror} in {base}: no images are kept; set {FOLDER_VARIABLE} to another folder")
        return None


def given_limit() -> int | None:
    """Return the bytes that S4_CACHE_GIB says; none where it is not set.

    Raises:
        ConfigError: it is not a number of at least 0.
    """
    given = os.environ.get(LIMIT_VARIABLE)
    if given is None:
        return None
    try:
        gib = float(given)
    except ValueError:
        gib = math.nan
    if not 0 <= gib < math.inf:
        raise ConfigError(f"{LIMIT_VARIABLE} must be GiB of at least 0, got {given!r}: set it to a number or unset it")
    return int(gib * 2**30)


def _own_folder(folder: Path) -> Path:
    """Make a folder that only this user can read.

    Raises:
        OSError: another user could have made it, or can change it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(0, f"{folder.name} must be a folder of this user's alone (mode 700)")
    return folder


@lru_cache(maxsize=1)
def _code_version() -> str:
    """Return what tells programs that decode otherwise, and boots: a crash loses what a disk had not taken yet."""
    code = hashlib.blake2b(PIL.__version__.encode(), digest_size=16)
    for file in sorted(Path(__file__).parent.glob("*.py")):
        code.update(file.read_bytes())
    return " ".join([code.hexdigest(), *_lines("/proc/sys/kernel/random/boot_id")])


def _share_of_free(root: Path) -> int:
    return min(_free_memory(), shutil.disk_usage(root).free + _used(root)) // SHARE


def _free_memory() -> int:
    """Return the bytes that this machine, or the container that this process is in, has to give."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    lines = _lines("/proc/meminfo")
    limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limits += [int(line) for line in _lines("/sys/fs/cgroup/memory.max") if line.strip().isdigit()]
    return min(limits)


def _used(root: Path) -> int:
    return sum(file.stat().st_size for file in root.glob("*/*"))


def _key(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _append(path: Path, end: int, *parts: Buffer) -> None:
    """Write after the first `end` bytes of a file, over what a killed writer left there.

    Raises:
        OSError: it could not be written; the file is as long as before.
    """
    path.touch(mode=0o600)
    try:
        with path.open("r+b") as file:
            file.truncate(end)
            file.seek(end)
            for part in parts:
                file.write(part)
    except OSError:
        with suppress(OSError):
            os.truncate(path, end)
        raise


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []


@cache
def _say(what: str) -> None:
    log.warning("cache of decoded images: %s", what)
