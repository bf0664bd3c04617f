"""Limits of MLflow on names, values and requests. A record is changed to fit; it is never lost to a refusal."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

NAME_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
INPUT_TAG_LENGTH = 500
BATCH_ROOM = 450_000
"""Bytes of JSON that metrics, params or tags may fill of a request, of which MLflow takes 1 000 000."""
CUT = "..."
SEARCHED_BACK = 200
"""Characters before a cut in which a place between two values is looked for."""
LARGEST_STEP = 2**63 - 1

Item = TypeVar("Item")


def clean_name(name: str) -> str:
    """Return the name of a metric, param or tag with what MLflow refuses replaced by `_`.

    It allows letters, digits, `_ - . : /` and spaces, up to 250 characters, that read as a relative path: no empty,
    `.` or `..` part, and no `..` at the start. A name that had to be changed ends with a hash of what it was, so that
    two names stay two.
    """
    cleaned = clean_path(name)
    if cleaned == name and 0 < len(name) <= NAME_LENGTH:
        return name
    mark = "-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return cleaned[: NAME_LENGTH - len(mark)].rstrip("/") + mark


def clean_path(path: str) -> str:
    """Return where an artifact lies below its run: a relative path without `..`, its ending kept; may be empty."""
    parts = [part for part in re.sub(r"[^/\w.\- :]", "_", path).split("/") if part]
    kept = "/".join("_" * len(part) if set(part) == {"."} else part for part in parts)
    return f"__{kept[2:]}" if kept.startswith("..") else kept


def clean_value(value: object, limit: int, *, keep_end: bool = False) -> str:
    """Return the value as text of at most `limit` characters; a longer one keeps its start, or its end.

    A start ends between two items where it lists some (`a=1, b=2` or lines): half a number reads like a number.
    """
    text = "" if value is None else str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if len(text) <= limit:
        return text
    room = limit - len(CUT)
    if keep_end:
        return CUT + text[len(text) - room :]
    kept = text[:room]
    end = max(kept.rfind("\n"), kept.rfind(", ") + 1)
    return (kept[:end] + " " if end > max(0, room - SEARCHED_BACK) else kept)[:room] + CUT


def clean_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Return tags under names and with texts that MLflow takes."""
    return {clean_name(key): clean_value(value, TAG_LENGTH) for key, value in tags.items()}


def finite(metrics: Mapping[str, float]) -> tuple[dict[str, float], int]:
    """Return the metrics that are finite numbers, under clean names, and how many were not."""
    numbers = {clean_name(name): _number(value) for name, value in metrics.items()}
    kept = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return kept, len(numbers) - len(kept)


def clean_step(step: float) -> int:
    """Return a step that fits the 64 bits of MLflow's stores."""
    return int(max(-LARGEST_STEP, min(step, LARGEST_STEP))) if math.isfinite(step) else 0


def flat_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a nested config as dotted paths and texts that fit MLflow's params."""
    return {clean_name(path): clean_value(value, PARAM_LENGTH) for path, value in _leaves(config, "")}


def weight(key: str, value: object = "") -> int:
    """Return the bytes that an entity takes of a request at most: a character may become twelve in JSON."""
    return 12 * (len(key) + (len(value) if isinstance(value, str) else 0)) + 100


def batches(items: Sequence[Item], weigh: Callable[[Item], int], room: int = BATCH_ROOM) -> Iterator[Sequence[Item]]:
    """Yield the items in batches that weigh at most `room`, or hold one item. MLflow itself splits them by number."""
    start, filled = 0, 0
    for index, item in enumerate(items):
        heavy = weigh(item)
        if index > start and filled + heavy > room:
            yield items[start:index]
            start, filled = index, 0
        filled += heavy
    if start < len(items):
        yield items[start:]


def _leaves(config: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
