"""Configuration of the adversary: a discriminator that tells the student's maps from labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainers.config.base import Frozen, Positive

SMALLEST_MAP = 32
"""Least height and width of what a discriminator sees, in pixels: five convolutions halve it."""


class AdversaryConfig(Frozen):
    """A discriminator of maps of classes, and what the student loses to it (Hung et al., 2018).

    There is one where a weight is above 0, or where `css.unsupervised_gate` or `css.indicator` reads its map.
    """

    weight_labelled: Annotated[float, Field(ge=0)] = 0.0
    """Of the student's adversarial loss on labelled images, beside those of Eq. 6; 0.01 in Hung et al."""
    weight_unlabelled: Annotated[float, Field(ge=0)] = 0.0
    """Of that on the first stream's views; 0.001 in Hung et al."""
    discriminator_lr: Positive = 1e-4
    """Learning rate of the discriminator's Adam at the start; falls by `optimizer.power`."""
    discriminator_width: int = Field(64, ge=1, le=512)
    """Channels of its first convolution; twice, four and eight times as many of the next ones."""
