"""Files that come with the package, by name, and others, by path: spaces and plans alike."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from search_spaces.parameters import SpaceError

Parsed = TypeVar("Parsed")


def names_in(shipped: Path) -> list[str]:
    """Return the names of the YAML files in a folder of the package."""
    return sorted(path.stem for path in shipped.glob("*.yaml"))


def load_named(what: str, name_or_path: str | Path, shipped: Path, parse: Callable[[str], Parsed]) -> Parsed:
    """Return what a YAML file describes: one that comes with the package, by name, or another, by path.

    Args:
        what: it describes: `space`, `plan`.
        shipped: folder of those that come with the package.
        parse: makes it from the text.

    Raises:
        SpaceError: there is no such file, or it does not describe one.
    """
    given, known = str(name_or_path), names_in(shipped)
    if given in known:
        path = shipped / f"{given}.yaml"
    elif isinstance(name_or_path, Path) or "/" in given or given.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        near = difflib.get_close_matches(given, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of them"
        raise SpaceError(f"a {what} must be one of {', '.join(known)}, or a YAML file; got {given!r}: {hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpaceError(f"a {what} must be a readable YAML file, got {path}: {why}") from None
    try:
        return parse(text)
    except SpaceError as error:
        raise SpaceError(f"{what} {path}: {error}") from None
