"""What the gangs of this project train: CSS, from a base config and a trial's overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainers.config import TrainConfig
from trainers.overrides import apply_overrides

if TYPE_CHECKING:
    from harness.trials import Value
    from trainers.run import Run


@dataclass(frozen=True)
class CssExperiment:
    """Implements `harness.trials.Experiment`. Light to import: torch is loaded where training happens."""

    base: TrainConfig

    @property
    def horizon(self) -> int:
        """Optimizer steps of a full trial."""
        return self.base.schedule.steps

    @property
    def metric(self) -> str:
        """The objective, on the dev split: the official validation images stay unseen by a search."""
        return "dev/miou"

    def resolve(self, overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
        """Return the resolved config and its hash.

        Raises:
            ConfigError: an override is unknown or out of range.
        """
        config = apply_overrides(self.base, overrides)
        return config.model_dump(mode="json"), config.hash

    def warm_up(self, run: Run) -> None:
        """Import the trainer, read the data and take one step that is thrown away."""
        from trainers.loop import warm_up

        warm_up(self.base, run)

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        """Train one configuration; return the hash of the config that was used."""
        from trainers.loop import train

        config = apply_overrides(self.base, overrides)
        train(config, run)
        return config.hash
