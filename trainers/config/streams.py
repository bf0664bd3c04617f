"""Configuration of streams: the views of an unlabelled image that its pseudo-labels supervise the student on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.config.base import Frozen
from trainers.config.method import StrongAugmentConfig


class StreamConfig(Frozen):
    """One view, what the student's decoder gets to see of it, and the weight of its loss."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Of its loss in L_u; 0: there is no such stream. The first one is always there, for L_c reads it."""
    view: Literal["strong", "weak"] = "strong"
    """The image as the teacher sees it, or after strong augmentation with draws of this stream's own."""
    strong: StrongAugmentConfig | None = None
    """Strong augmentation of this stream alone; none: `augment.strong`, with other draws. For `strong` only."""
    features: Literal["none", "dropout", "complementary"] = "none"
    """Which channels of the encoder's maps reach the decoder: all; each with probability 1/2, doubled (UniMatch); or
    the same for half of the images, and for the second stream of this kind what the first drops (UniMatch V2)."""

    @model_validator(mode="after")
    def _strong_augmentation_is_of_a_strong_view(self) -> StreamConfig:
        if self.view == "weak" and self.strong is not None:
            raise ValueError("strong must be null with view=weak, got an augmentation: set view=strong, or strong=null")
        return self


def loss_name(stream: str) -> str:
    """Return the name of a stream's loss and of the share of pixels in it: that of L_u, if it is the first."""
    return "unsupervised" if stream == "first" else f"unsupervised_{stream}"


class StreamsConfig(Frozen):
    """One to three views; L_u is the sum of their losses, each times its weight."""

    first: StreamConfig = StreamConfig()
    second: StreamConfig = StreamConfig(weight=0.0)
    third: StreamConfig = StreamConfig(weight=0.0)

    def active(self) -> dict[str, StreamConfig]:
        """Return the streams that there are, by name."""
        named = {"first": self.first, "second": self.second, "third": self.third}
        return {name: stream for name, stream in named.items() if name == "first" or stream.weight > 0}

    @model_validator(mode="after")
    def _two_are_complementary(self) -> StreamsConfig:
        names = [name for name, stream in self.active().items() if stream.features == "complementary"]
        if len(names) > 2:
            raise ValueError(
                f"features=complementary must be of at most two streams, got {', '.join(names)}: set one to dropout"
            )
        return self
