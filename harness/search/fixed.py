"""Trainings that are all known before they start, as a search space without choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.trials import Value


class FixedTrials:
    """A `SearchSpace` in which trial N is the N-th of a list of overrides."""

    def __init__(self, name: str, runs: Sequence[Mapping[str, Value]]) -> None:
        """Make the space.

        Args:
            name: for people and for records.
            runs: overrides of the base config, in the order of training.
        """
        self._name = name
        self._runs = runs

    @property
    def name(self) -> str:
        """Name for people and for records."""
        return self._name

    @property
    def baseline_params(self) -> Mapping[str, Value]:
        """The first run."""
        return {"run": 0}

    def suggest(self, trial: Any) -> dict[str, Value]:
        """Return the run of a trial's number; a range of one value is left to no sampler."""
        return {"run": trial.suggest_int("run", trial.number, trial.number)}

    def overrides(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Return the overrides of the run."""
        return dict(self._runs[int(params["run"] or 0)])
