"""Scenes of digits as a source of images. Light to import: they are composed where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from trainers.config import DigitsData
from trainers.data.source import Samples, uniform_samples

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["labelled", "unlabelled", "dev", "val"]


class DigitsSource:
    """The scenes of one split; composed at the first fetch."""

    def __init__(self, data: DigitsData, split: Split) -> None:
        self._data = data
        self._split = split
        self._count: int = getattr(data, split)

    @property
    def names(self) -> tuple[str, ...]:
        """Names that say seed, split and index of a scene."""
        return tuple(f"digits{self._data.seed}-{self._split}-{index:05d}" for index in range(self._count))

    def __len__(self) -> int:
        return self._count

    def fetch(self, indices: Sequence[int]) -> Samples:
        """Return scenes of one size; labels are 0 for the background and 1 + d for digit d, never 255."""
        return uniform_samples(*self._scenes, indices)

    @cached_property
    def _scenes(self) -> tuple[Tensor, Tensor]:
        from trainers.data.scenes import compose

        return compose(self._data, self._split, self._count)
