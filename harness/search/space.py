"""What a search needs of a search space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from harness.trials import Value


class SearchSpace(Protocol):
    """Define-by-run: which parameters a trial has may depend on those drawn before."""

    @property
    def name(self) -> str:
        """Name for people and for records."""
        ...

    @property
    def baseline_params(self) -> Mapping[str, Value]:
        """The published baseline as the sampler would have drawn it; always trial 0."""
        ...

    def suggest(self, trial: Any) -> dict[str, Value]:
        """Draw every parameter through `trial.suggest_*` of Optuna and return them by name."""
        ...

    def overrides(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Return the dotted config paths that these parameters set, and the values."""
        ...
