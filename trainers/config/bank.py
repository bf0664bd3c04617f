"""Configuration of the bank: queues of labelled pixels that labelled pixels are contrasted with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.config.base import Frozen, Positive


class BankConfig(Frozen):
    """A queue of representations for each class, and InfoNCE of labelled pixels against all of them (PixCon)."""

    weight: Annotated[float, Field(ge=0)] = 0.0
    """Of its loss, beside those of Eq. 6; 0: there is no bank. PixCon's is 0.1."""
    pixels: Literal["labelled_correct", "labelled", "confident"] = "labelled_correct"
    """Which pixels of labelled images are contrasted and put in: those that the student gives their label, all under
    their label, or those of which it is confident (delta_u), under the class that it says."""
    size: int = Field(256, ge=1)
    """Pixels a class; the oldest leave first."""
    anchors: int = Field(64, ge=1)
    """Pixels of each class that are drawn in a step, over all ranks; all are put in."""
    anchors_in_all: int = Field(1024, ge=1)
    """Of those, how many are contrasted, whatever the number of classes."""
    temperature: Positive = 0.1
    """By which cosines are divided."""

    @model_validator(mode="after")
    def _queues_hold_a_step(self) -> BankConfig:
        if self.anchors > self.size:
            raise ValueError(f"anchors must be at most size ({self.size}), got {self.anchors}: lower it or raise size")
        return self
