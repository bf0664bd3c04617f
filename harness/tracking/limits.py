"""What MLflow accepts as names and values. A record is bent to fit; it is never lost to a refusal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

NAME_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
PARAMS_A_BATCH = 100
CUT = "..."

Item = TypeVar("Item")


def clean_name(name: str) -> str:
    """Return the name of a metric, param or tag with what MLflow refuses replaced by `_`.

    It allows letters, digits, `_ - . : /` and spaces, up to 250 characters, that read as a relative path: no empty,
    `.` or `..` part.
    """
    parts = [part for part in re.sub(r"[^/\w.\- :]", "_", name).split("/") if part]
    cleaned = "/".join("_" * len(part) if set(part) == {"."} else part for part in parts)
    return cleaned[:NAME_LENGTH].rstrip("/") or "_"


def clean_value(value: object, limit: int, *, keep_end: bool = False) -> str:
    """Return the value as text of at most `limit` characters; a longer one keeps its start, or its end."""
    text = "" if value is None else str(value)
    if len(text) <= limit:
        return text
    room = limit - len(CUT)
    return CUT + text[-room:] if keep_end else text[:room] + CUT


def finite(metrics: Mapping[str, float]) -> tuple[dict[str, float], int]:
    """Return the metrics that are finite numbers, under clean names, and how many were not."""
    kept = {clean_name(name): float(value) for name, value in metrics.items() if math.isfinite(value)}
    return kept, sum(not math.isfinite(value) for value in metrics.values())


def flat_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a nested config as dotted paths and texts that fit MLflow's params."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update({f"{clean_name(str(key))}.{path}": text for path, text in flat_params(value).items()})
        else:
            flat[clean_name(str(key))] = clean_value(value, PARAM_LENGTH)
    return flat


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in batches of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
