"""YAML files of spaces and plans: found by name or path, and read strictly."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from search_spaces.parameters import SpaceError

Parsed = TypeVar("Parsed")


MOST_NODES = 100_000
"""Values and keys in a file, those that an alias repeats counted again."""


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which would let the last of two equal keys win and read 1e-4 as text.

    A file whose aliases stand for more than `MOST_NODES`, or for themselves, is refused.
    """

    def get_single_node(self) -> yaml.Node | None:
        """Return the document.

        Raises:
            yaml.YAMLError: it is too large once aliases are followed.
        """
        node = super().get_single_node()
        sizes: dict[int, float] = {}
        if node is not None and _size(node, sizes) > MOST_NODES:
            raise yaml.constructor.ConstructorError(None, None, f"aliases stand for more than {MOST_NODES} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping.

        Raises:
            yaml.YAMLError: a key appears twice.
        """
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in keys:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} appears twice", key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Return the number of values and keys of a node with all aliases followed; infinite within itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is known
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    Raises:
        SpaceError: it is not YAML, or a key appears twice.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also no date, too many digits, too deep
        raise SpaceError(f"must be YAML, got an error: {' '.join(str(error).split())}") from None


def names_in(shipped: Path) -> list[str]:
    """Return the names of the YAML files in a folder of the package."""
    return sorted(path.stem for path in shipped.glob("*.yaml"))


def load_named(what: str, name_or_path: str | Path, shipped: Path, parse: Callable[[str, str], Parsed]) -> Parsed:
    """Return what a YAML file describes: one that comes with the package, by name, or another, by path.

    Args:
        what: kind of file in refusals: `space`, `plan`.
        shipped: folder of those that come with the package.
        parse: makes it from the text, and from the file's name, which it has where the text gives none.

    Raises:
        SpaceError: there is no such file, or it does not describe one.
    """
    given, names = str(name_or_path), names_in(shipped)
    if given in names:
        path = shipped / f"{given}.yaml"
    elif isinstance(name_or_path, Path) or "/" in given or given.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        near = difflib.get_close_matches(given, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of them"
        raise SpaceError(f"a {what} must be one of {', '.join(names)}, or a YAML file; got {given!r}: {hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpaceError(f"a {what} must be a readable YAML file, got {path}: {reason}") from None
    try:
        return parse(text, path.stem)
    except SpaceError as error:
        if len(error.faults) == 1:
            raise SpaceError(f"{what} {path}: {error}") from None
        raise SpaceError(
            f"{what} {path} has {len(error.faults)} faults:", *(f"  {fault}" for fault in error.faults)
        ) from None
