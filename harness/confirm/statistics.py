"""Which configuration a confirmation chooses, and whether tuning beat the noise."""

from __future__ import annotations

from collections.abc import Mapping

from harness.statistics.intervals import Interval, t_interval


def choose(scores: Mapping[str, Mapping[int, float]]) -> str:
    """Return the label whose mean has the highest lower bound; of equal ones the first.

    The lower bound, and not the mean, prefers what is good with every seed to what is very good with one.
    """
    return max(scores, key=lambda label: t_interval([*scores[label].values()]).low)


def verdict(difference: Interval, chosen: str, metric: str) -> str:
    """Return whether tuning beat the noise, in one line; `difference` is that of the chosen one to the baseline."""
    numbers = f"{metric} {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    if difference.low > 0:
        return f"tuning beat the noise: {chosen} - baseline is {numbers}"
    if difference.high < 0:
        return f"the published baseline is better: {chosen} - baseline is {numbers}"
    return f"tuning did not beat the noise: {chosen} - baseline is {numbers}, which holds 0"
