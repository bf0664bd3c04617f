"""What a measurement of scaling is asked to do: worker counts, batches, lengths. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from trainers.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from trainers.config import TrainConfig


class Mode(StrEnum):
    """What stays the same when workers are added: the batch of each, or that of all together."""

    weak = "weak"
    strong = "strong"


@dataclass(frozen=True)
class ScaleRequest:
    """Which points are measured, and for how long."""

    preset: str
    config: TrainConfig
    """Its batch is that of a worker with weak scaling, and that of all workers together with strong scaling."""
    mode: Mode
    counts: tuple[int, ...]
    """Worker counts, ascending."""
    steps: int
    """Steps in a timed block."""
    blocks: int
    """Timed blocks of a repeat."""
    warmup: int
    """Steps before the first block, which are reported apart."""
    repeats: int
    """How often each point is measured, in processes of its own each time."""

    @property
    def total_steps(self) -> int:
        """Of a repeat."""
        return self.warmup + self.steps * self.blocks

    def config_of(self, workers: int) -> TrainConfig:
        """Return what this many workers train.

        Its horizon lies just behind the last step that is timed, and it is never evaluated.

        Raises:
            ConfigError: the workers cannot share the batch.
        """
        from trainers.loader import check_batches
        from trainers.overrides import apply_overrides

        schedule, times = self.config.schedule, workers if self.mode is Mode.weak else 1
        config = apply_overrides(
            self.config,
            {
                "schedule.labelled_batch": schedule.labelled_batch * times,
                "schedule.unlabelled_batch": schedule.unlabelled_batch * times,
                "schedule.steps": self.total_steps + 1,
                "schedule.evaluate_every": self.total_steps + 1,
            },
        )
        check_batches(config, workers)
        return config

    def fits(self, workers: int) -> bool:
        """Return whether this many workers can share the batch."""
        try:
            self.config_of(workers)
        except ConfigError:
            return False
        return True

    def images_of(self, workers: int) -> int:
        """Return the images of a step, labelled and unlabelled, over all workers."""
        schedule, times = self.config.schedule, workers if self.mode is Mode.weak else 1
        unlabelled = schedule.unlabelled_batch if self.config.uses_unlabelled else 0
        return (schedule.labelled_batch + unlabelled) * times

    def as_plain(self) -> Mapping[str, Any]:
        """Return it as JSON-able values, the config as its hash and its batches."""
        schedule = self.config.schedule
        return {
            "preset": self.preset,
            "mode": self.mode.value,
            "workers": list(self.counts),
            "labelled_batch": schedule.labelled_batch,
            "unlabelled_batch": schedule.unlabelled_batch if self.config.uses_unlabelled else 0,
            "batch_of": "a worker" if self.mode is Mode.weak else "all workers",
            "steps": self.steps,
            "blocks": self.blocks,
            "warmup": self.warmup,
            "repeats": self.repeats,
        }


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas, ascending.

    Raises:
        UsageError: they are not.
    """
    words = [word.strip() for word in text.split(",")]
    counts = tuple(int(word) for word in words if word.isdecimal())
    ascending = all(before < after for before, after in pairwise(counts))
    if len(counts) != len(words) or not ascending or counts[0] < 1:
        raise UsageError(f"{option} must be whole numbers from 1 on, ascending, got {text!r}: for example 1,2,4")
    return counts


def doubling(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... as far as there is room."""
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return tuple(counts)
