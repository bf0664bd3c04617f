"""Files that a driver which dies, or whose disk is full, must leave whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def fresh_folder(folder: Path) -> Path:
    """Make and return a numbered folder below this one: Ray goes on with what it finds under a name it knows."""
    number = 1
    while (folder / f"{number:03d}").exists():
        number += 1
    (folder / f"{number:03d}").mkdir(parents=True)
    return folder / f"{number:03d}"


def end_with_a_whole_line(path: Path) -> None:
    """Cut off a line that was left half written in an append-only file; a file that does not exist is whole."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of an append-only file, one a line; half a line that a killed driver left is passed over.

    Raises:
        ValueError: a whole line is no JSON.
        OSError: the file cannot be read; one that does not exist has no lines.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)
