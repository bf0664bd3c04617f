"""What is measured: one size as the requirement states it, and a tiny one that shows the benchmark works."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers.config import (
    AugmentConfig,
    FolderData,
    LossConfig,
    ModelConfig,
    ScheduleConfig,
    StrongAugmentConfig,
    TrainConfig,
    WeakAugmentConfig,
)
from trainers.css.prototypes import Prototypes
from trainers.models.heads import Dense


class Size(NamedTuple):
    """Sizes of images, networks and samples; batches are labelled + unlabelled images of `batch` each."""

    model: ModelConfig
    classes: int
    """K."""
    side: int
    """Height and width of what the networks see."""
    batch: int
    queries: int
    negatives: int
    stored: tuple[int, int]
    """Height and width of the images after reading."""
    files: tuple[int, int]
    """Height and width of the images on disk."""
    images: int
    """How many images are on disk."""
    repeats: int
    """Of what takes seconds."""
    quick_repeats: int
    """Of what takes less."""


FULL = Size(
    model=ModelConfig(arch="deeplabv3plus", backbone="resnet50", output_stride=16, representation_dim=256),
    classes=21,
    side=129,
    batch=4,
    queries=256,
    negatives=512,
    stored=(160, 212),
    files=(375, 500),
    images=64,
    repeats=3,
    quick_repeats=15,
)
QUICK = Size(
    model=ModelConfig(arch="tiny", width=8, representation_dim=16),
    classes=5,
    side=33,
    batch=2,
    queries=16,
    negatives=16,
    stored=(36, 44),
    files=(54, 66),
    images=12,
    repeats=1,
    quick_repeats=1,
)


def train_config(size: Size, root: Path) -> TrainConfig:
    """Every part of the step at work, strong geometry included."""
    return TrainConfig(
        data=FolderData(
            root=root,
            classes=tuple(f"class {index}" for index in range(size.classes)),
            height=size.stored[0],
            width=size.stored[1],
            labelled=size.images // 4,
            dev=1,
        ),
        model=size.model,
        augment=AugmentConfig(
            weak=WeakAugmentConfig(scale=(0.75, 1.5), flip=0.5, crop=(size.side, size.side)),
            strong=StrongAugmentConfig(scale=(0.8, 1.25), shift=0.1, flip=0.5),
        ),
        loss=LossConfig(queries=size.queries, negatives=size.negatives),
        schedule=ScheduleConfig(labelled_batch=size.batch, unlabelled_batch=size.batch),
    )


def write_images(size: Size, root: Path) -> None:
    """Write JPEG files and PNG masks: smooth colours, some noise, squares of all classes."""
    rng = np.random.default_rng(0)
    height, width = size.files
    for part, count in (("train", size.images), ("val", 1)):
        for folder in ("images", "masks"):
            (root / part / folder).mkdir(parents=True)
        for index in range(count):
            cells = rng.integers(0, size.classes, (5, 7)).astype(np.uint8)
            mask = Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)
            colours = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
            smooth = np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC), dtype=float)
            noisy = smooth + rng.normal(0, 8, smooth.shape)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / part / "images" / f"{index:03}.jpg")
            mask.save(root / part / "masks" / f"{index:03}.png")


class Maps(NamedTuple):
    """What networks and data would give, with all classes present: times depend on neither."""

    dense: Dense
    """Of labelled and unlabelled images, channels_last; representations lean towards their class's prototype."""
    label: Tensor
    """[2 batch, h, w]."""
    hard: Tensor
    """[2 batch, h, w] bool, four of five pixels."""
    prototypes: Prototypes
    images: Tensor
    """[batch, 3, H, W]."""


def draw_maps(size: Size) -> Maps:
    """The same for every call."""
    draws = torch.Generator().manual_seed(0)
    cells, dim = -(-size.side // 4), size.model.representation_dim
    prototypes = Prototypes(torch.randn(size.classes, dim, generator=draws), torch.ones(size.classes, dtype=torch.bool))
    label = torch.randint(size.classes, (2 * size.batch, -(-cells // 3), -(-cells // 3)), generator=draws)
    label = label.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :cells, :cells].contiguous()
    shape = (2 * size.batch, cells, cells)
    rep = 0.5 * prototypes.values[label] + torch.randn(*shape, dim, generator=draws)
    logits = 3 * torch.randn(*shape, size.classes, generator=draws)
    images = torch.rand(size.batch, size.side, size.side, 3, generator=draws)
    return Maps(
        Dense(logits.permute(0, 3, 1, 2), rep.permute(0, 3, 1, 2)),
        label,
        torch.rand(shape, generator=draws) < 0.8,
        prototypes,
        images.permute(0, 3, 1, 2),
    )
