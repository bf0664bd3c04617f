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
    for _, group in numbered_groups(source, indices, batch, run):
        yield group


def numbered_groups(
    source: ImageSource, indices: Sequence[int], batch: int, run: Run
) -> Iterator[tuple[list[int], Group]]:
    """Yield the groups of `rank_groups`, each with the indices of its images in the source."""
    mine = indices[run.rank :: run.world_size]
    for start in range(0, len(mine), batch):
        chosen = mine[start : start + batch]
        samples = source.fetch(chosen)
        for height, width in torch.unique(samples.sizes, dim=0).tolist():
            rows = (samples.sizes == torch.tensor([height, width])).all(dim=1)
            group = Group(
                to_images(samples.images[rows, :, :height, :width], run.device),
                samples.labels[rows, :height, :width].to(run.device, torch.int64),
            )
            yield [chosen[row] for row in rows.nonzero().flatten().tolist()], group
