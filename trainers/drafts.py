"""Drafts: files and folders that are made beside their target, under a hidden name, and renamed when they are whole.

A draft is locked while it is made, so what a killed writer left can be told from what is being written.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = re.compile(r"\..+\.[0-9a-f]+\.tmp")


def draft_name(path: Path) -> Path:
    """Return a free name for a draft of this file or folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def is_draft(path: Path) -> bool:
    """Return whether a file or folder has the name of a draft."""
    return NAME.fullmatch(path.name) is not None


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield an empty file that becomes `path`, whole, when the block ends; where the block raises it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_name(path)
    try:
        draft.touch()
        with held(draft):
            yield draft
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def held(draft: Path) -> Iterator[None]:
    """Keep a draft locked, so that `sweep` leaves it alone; a file system without locks has none."""
    with opened(draft) as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def left_over(folder: Path, deep: bool = True) -> list[Path]:
    """Return the drafts below a folder, or with `deep` off right in it, whose writers were killed, by name."""
    found = folder.rglob(".*.tmp") if deep else folder.glob(".*.tmp")
    return sorted(path for path in found if is_draft(path) and not _is_held(path))


def sweep(folder: Path) -> None:
    """Remove the drafts below a folder whose writers were killed."""
    for draft in left_over(folder):
        shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


def _is_held(draft: Path) -> bool:
    try:
        with opened(draft) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


@contextmanager
def opened(draft: Path) -> Iterator[int]:
    """Yield a file or folder that is open, to be locked; the end of the block ends its lock."""
    file = os.open(draft, os.O_RDONLY if draft.is_dir() else os.O_RDWR)
    try:
        yield file
    finally:
        os.close(file)
