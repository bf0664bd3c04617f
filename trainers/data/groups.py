"""Stored images as they are, without padding: what is evaluated, in groups that go through a network together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.data.source import ImageSource
from trainers.loader import to_images
from trainers.run import Run


class Group(NamedTuple):
    """Images of one size, on the device."""

    images: Tensor
    """[N, 3, H, W] in [0, 1]."""
    labels: Tensor
    """[N, H, W] int64, 255 where there is none."""


def rank_groups(source: ImageSource, indices: Sequence[int], batch: int, run: Run) -> Iterator[Group]:
    """Yield this rank's share of some images: every `world_size`-th one, so that each is seen by one rank.

    Images are fetched `batch` at a time; those of a batch that share a size make a group. Padding thus reaches no
    network, and no image's prediction depends on the size of another.
    """
    mine = indices[run.rank :: run.world_size]
    for start in range(0, len(mine), batch):
        samples = source.fetch(mine[start : start + batch])
        for height, width in torch.unique(samples.sizes, dim=0).tolist():
            rows = (samples.sizes == torch.tensor([height, width])).all(dim=1)
            yield Group(
                to_images(samples.images[rows, :, :height, :width], run.device),
                samples.labels[rows, :height, :width].to(run.device, torch.int64),
            )
