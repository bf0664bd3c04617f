"""What the field at a config path may hold, for words of a command line: text is text there, and lists need no YAML."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from trainers.config.training import TrainConfig

Kinds = tuple[Any, ...]
"""Types that a value may have, unions taken apart; none where the path is unknown."""


def kinds_at(path: str) -> Kinds:
    """Return what the field at a dotted path may hold; of data, in any kind of data."""
    found: list[Any] = [TrainConfig]
    for part in path.split("."):
        sections = [kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseModel)]
        fields = [section.model_fields[part] for section in sections if part in section.model_fields]
        found = [kind for field in fields for kind in _apart(field.annotation)]
    return tuple(found)


def read_word(path: str, text: str) -> Any:
    """Return the value that a word is for the field at a path.

    - Where the field holds text alone, the text is it, as it stands: `no`, `1e3`, `*`; in quotes, what is between them.
    - Where it holds a list, words with commas are one: `sky,building`; each is read as its items are.
    - Anything else is YAML, or text where it is none and the field can hold text.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is no YAML, and the field holds no text.
    """
    kinds = [kind for kind in kinds_at(path) if kind is not NoneType]
    texts = [kind for kind in kinds if _is_text(kind)]
    text_alone, quoted = bool(kinds) and texts == kinds, text.startswith(("[", "{", '"', "'"))
    if text_alone and not quoted and not (NoneType in kinds_at(path) and text in ("", "null", "~")):
        return text
    items = next((get_args(kind) for kind in kinds if get_origin(kind) is tuple), ())
    if get_origin(next(iter(items), None)) is tuple:  # pairs, which are given as a mapping
        items = ()
    if items and not quoted and ("," in text or items[0] is str):
        return [word.strip() if items[0] is str else yaml.safe_load(word) for word in text.split(",")]
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # also no date, too many digits
        if kinds and not texts:
            raise
        return text
    if items[1:] == (...,) and type(value) in (int, float):
        return [value]
    no_word_for_it = isinstance(value, bool) and bool not in kinds  # `no` and `on` are text here
    return text if (text_alone and not isinstance(value, str | None)) or (texts and no_word_for_it) else value


def _apart(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _apart(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _apart(part)]
    return [annotation]


def _is_text(kind: Any) -> bool:
    words = get_args(kind) if get_origin(kind) is Literal else ()
    return kind in (str, Path) or (bool(words) and all(isinstance(word, str) for word in words))
