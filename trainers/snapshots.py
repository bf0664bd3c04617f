"""Snapshots of the representation space at each report: a few pixels and the prototypes, for a picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.compute import forward
from trainers.config import TrainConfig
from trainers.css.prototypes import Prototypes
from trainers.data.source import ImageSource
from trainers.loader import to_images
from trainers.quality import evenly_spaced

IMAGES = 8
"""Images whose pixels are looked at."""
KEPT = 12
"""Snapshots of a training, at most."""


class Snapshot(NamedTuple):
    """Directions in the representation space at a report, all of length 1, float16 on the CPU."""

    step: int
    """Optimizer steps done."""
    pixels: Tensor
    """[P, D], of the same pixels of dev images at every report."""
    labels: Tensor
    """[P] int64, their true classes."""
    prototypes: Tensor
    """[K, D]; zero for classes never seen."""


@torch.no_grad()
def take_snapshot(
    teacher: nn.Module, prototypes: Prototypes, source: ImageSource, config: TrainConfig, step: int
) -> Snapshot:
    """Return the teacher's representations of `evaluation.representation_pixels` pixels of each class.

    They are evenly spaced over the pixels of a class in `IMAGES` evenly spaced images, at the size of the network's
    maps. The choice depends on the true masks alone. No randomness is drawn, and nothing that trains is touched.
    """
    training, device = teacher.training, prototypes.values.device
    teacher.eval()
    pixels, labels = [], []
    samples = source.fetch(evenly_spaced(IMAGES, len(source)))
    for image, mask, (height, width) in zip(samples.images, samples.labels, samples.sizes.tolist(), strict=True):
        inputs = to_images(image[None, :, :height, :width], device)
        maps = forward(teacher, inputs, config).representations.float()
        small = F.interpolate(mask[None, None, :height, :width].float(), size=maps.shape[-2:], mode="nearest")
        pixels.append(F.normalize(maps, dim=1).permute(0, 2, 3, 1).flatten(0, 2))
        labels.append(small.flatten().long())
    teacher.train(training)
    of_all = torch.cat(labels)
    chosen = _of_each_class(of_all, config.num_classes, config.evaluation.representation_pixels)
    directions = F.normalize(prototypes.values, dim=1)
    return Snapshot(
        step, torch.cat(pixels)[chosen.to(device)].half().cpu(), of_all[chosen], directions.half().cpu()
    )  # fmt: skip


def _of_each_class(labels: Tensor, num_classes: int, count: int) -> Tensor:
    """Return the places of `count` pixels of each class, of fewer where there are no more."""
    places = [(labels == index).nonzero().flatten() for index in range(num_classes)]
    return torch.cat([place[evenly_spaced(count, len(place))] for place in places])


def add_snapshot(snapshots: Sequence[Snapshot], new: Snapshot) -> list[Snapshot]:
    """Return the snapshots with a new one; of more than `KEPT`, without the one that leaves the smallest gap."""
    kept = [*(old for old in snapshots if old.step < new.step), new]
    if len(kept) > KEPT:
        gaps = [after.step - before.step for before, after in zip(kept, kept[2:], strict=False)]
        del kept[1 + gaps.index(min(gaps))]
    return kept
