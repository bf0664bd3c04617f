"""Configuration of the contrast with unreliable pixels, those of which the teacher is least sure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from trainers.config.base import Frozen, Share


class UnreliableConfig(Frozen):
    """Anchors of which the teacher is sure, and queues of negatives of which it is not (U2PL).

    For `loss.contrast=unreliable` only. A class's rank in a pixel is the number of classes that are more likely there.
    """

    share: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Of the unlabelled pixels, how many are reliable, those of the lowest entropy, and how many are unreliable, those
    of the highest; falls linearly to 0 at the horizon."""
    anchor_confidence: Share = 0.3
    """Anchors are those labelled and reliable pixels to whose class the teacher gives more than this."""
    low_rank: int = Field(3, ge=0)
    """An unreliable pixel is a negative of the classes of at least this rank; a labelled one of all but its own class
    below it. Below the number of classes."""
    high_rank: int = Field(20, ge=1)
    """And of ranks below this; with no more classes than this it excludes none."""
    size: int = Field(2048, ge=1)
    """Negatives that are kept of each class; the oldest leave first."""
    entries: int = Field(128, ge=1)
    """Of each class, how many a step puts in at most, over all ranks."""

    @model_validator(mode="after")
    def _ordered(self) -> UnreliableConfig:
        if self.low_rank >= self.high_rank:
            raise ValueError(
                f"low_rank must be below high_rank ({self.high_rank}), got {self.low_rank}: lower it or raise high_rank"
            )
        if self.entries > self.size:
            raise ValueError(f"entries must be at most size ({self.size}), got {self.entries}: lower it or raise size")
        return self
