"""Configuration of a search: its options, and the steps at which a scheduler may stop a trial."""

from __future__ import annotations

from trainers.errors import UsageError


def grace(steps: int, every: int, wished: int | None) -> int:
    """Return the steps before a trial may be stopped: as wished, or a sixth of the horizon, rounded up to a report.

    Raises:
        UsageError: more than the horizon.
    """
    if wished is not None and wished > steps:
        raise UsageError(f"--grace-steps must be at most the horizon, {steps} steps, got {wished}: lower it")
    return wished if wished is not None else min(-(-steps // (6 * every)) * every, steps)


def rungs(steps: int, grace_steps: int, reduction_factor: int) -> list[int]:
    """Return the steps at which ASHA decides: the grace period times powers of the factor, below the horizon."""
    found = []
    while grace_steps < steps:
        found.append(grace_steps)
        grace_steps *= reduction_factor
    return found
