"""Spread of one config over seeds, and the seeds that it takes to see a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.ablation.results import Ablation
from harness.statistics.power import DELTAS, Needed, Spread, seeds_table, spread, spread_of_differences
from harness.tables import Column, Table
from trainers.errors import UsageError


@dataclass(frozen=True)
class Noise:
    """The spread of a metric over the seeds of an ablation's base."""

    metric: str
    scores: dict[int, float]
    """By seed."""
    spread: Spread
    needed: Sequence[Needed]
    """Seeds for differences of several sizes."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return sum(self.scores.values()) / len(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "scores": {str(seed): score for seed, score in self.scores.items()},
            "mean": self.mean,
            **self.spread._asdict(),
            "needed": [line._asdict() for line in self.needed],
        }

    def __str__(self) -> str:
        over, scores = self.spread, " ".join(f"{score:.4f}" for score in self.scores.values())
        return (
            f"{self.metric}: {self.mean:.4f}, standard deviation over {over.n} seeds {over.std:.4f} "
            f"(95 % interval {over.low:.4f} to {over.high:.4f}): {scores}"
        )


def noise_of(ablation: Ablation, metric: str) -> Noise:
    """Return the spread of a metric.

    Raises:
        UsageError: fewer than two seeds came to their end.
    """
    scores = ablation.scores(ablation.request.base, metric)
    if len(scores) < 2:
        failed = ", ".join(f"seed {run.seed}: {run.error or run.state}" for run in ablation.outcomes if run.error)
        raise UsageError(f"two seeds must reach the horizon for a spread, {len(scores)} did ({failed}): mend that")
    own = spread([*scores.values()])
    return Noise(metric, scores, own, seeds_table(spread_of_differences(own), DELTAS))


def needed_table(noise: Noise) -> Table:
    """Return how many seeds it takes to see differences of several sizes."""
    columns = [Column("difference in mIoU", form="g"), Column("seeds", align="right"),
               Column("seeds, cautious", align="right")]  # fmt: skip
    rows = [[line.delta, *("> 10 000" if count is None else count for count in (line.seeds, line.seeds_upper))]
            for line in noise.needed]  # fmt: skip
    return Table("seeds-needed", "", columns, rows)


def caution(noise: Noise) -> str:
    """Return what the table of seeds supposes."""
    return (
        "for a paired t-test at 0.05 to find the difference with a chance of 0.8, if the seeds of two configs have "
        "nothing in common (paired seeds may do with fewer); cautious: with a spread that the true one exceeds once in "
        f"five times, which {noise.spread.n} seeds allow"
    )
