"""Append-only files of lines, which a driver may leave with half a line when it is killed or its disk is full."""

from __future__ import annotations

import os
from pathlib import Path


def end_with_a_whole_line(path: Path) -> None:
    """Cut off a line that was left half written; a file that does not exist is whole."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
