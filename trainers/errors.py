"""Errors that a user of the trainer can meet.

A `UsageError` is a user's mistake: its message is one line (what must hold, what was given, what to do), and commands
end with exit code 2. A `DivergedError` is an outcome of training: the trial failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


class UsageError(ValueError):
    """A request that cannot be met; nothing was changed."""


class ConfigError(UsageError):
    """A preset, a config path or a value is wrong."""


class DataError(UsageError):
    """A data set is missing, incomplete or inconsistent."""


class DivergedError(RuntimeError):
    """Training produced a value that is not finite."""


def first_line(error: Exception) -> str:
    """Return what an error of a library says, in one line of 120 characters at most."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def require_finite(metrics: Mapping[str, float], step: int) -> None:
    """Refuse metrics that are not numbers.

    Raises:
        DivergedError: names those that are infinite or NaN.
    """
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise DivergedError(f"training diverged by step {step}: {', '.join(bad)} not finite")
