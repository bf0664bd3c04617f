"""Ours and the reference of each stage, as calls without arguments on the same inputs."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from reference.per_class_pseudo_labels import mixed_labels
from reference.per_image_augment import Strength, augment_batch
from reference.per_query_contrast import Losses, Pixels, matrix_product_losses, per_query_losses
from sizes import Size, draw_maps
from torch import Tensor
from torchvision.transforms import ColorJitter

from trainers.augment.pipeline import strong_augment
from trainers.config import LossConfig, TrainConfig
from trainers.css.contrast import build_pool, contrastive_loss
from trainers.css.pseudo_labels import Targets, collaborate, pseudo_labels

Path = Callable[[], object]


def contrast_paths(size: Size) -> dict[str, Path]:
    """Forward and backward of the contrastive loss, the choice of pixels included."""
    maps = draw_maps(size)
    rep = maps.dense.representations.requires_grad_()
    config = LossConfig(queries=size.queries, negatives=size.negatives)

    def ours() -> Tensor:
        pool = build_pool(maps.label, maps.hard, size.classes)
        draws = torch.Generator().manual_seed(0)
        return _gradient(contrastive_loss(rep, pool, maps.prototypes, pool.hard, config, draws).sum())

    def reference(losses: Losses) -> Tensor:
        pixels = Pixels(rep, maps.label, maps.hard, maps.prototypes.values)
        draws = torch.Generator().manual_seed(0)
        return _gradient(torch.stack([*losses(pixels, size.queries, size.negatives, 0.5, draws).values()]).sum())

    def _gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, rep)[0]

    return {
        "ours": ours,
        "per_query": lambda: reference(per_query_losses),
        "matrix_product": lambda: reference(matrix_product_losses),
    }


def pseudo_label_paths(size: Size, config: TrainConfig) -> dict[str, Path]:
    """Labels of both spaces and `mix`, from the teacher's maps of the unlabelled images."""
    maps = draw_maps(size)
    teacher = maps.dense.of(slice(size.batch, None))
    tau, full = config.css.indicator_temperature, (size.side, size.side)
    return {
        "ours": lambda: collaborate(pseudo_labels(teacher, maps.prototypes, tau, full), config, warming_up=False),
        "per_class": lambda: mixed_labels(*teacher[:2], maps.prototypes.values, tau, full),
    }


def augmentation_paths(size: Size, config: TrainConfig) -> dict[str, Path]:
    """Strong augmentation of the unlabelled images with their maps (ours moves four, the reference two)."""
    maps = draw_maps(size)
    teacher = maps.dense.of(slice(size.batch, None))
    labels = pseudo_labels(teacher, maps.prototypes, 0.25, (size.side, size.side))
    targets = Targets(*map(torch.clone, collaborate(labels, config, warming_up=False)))
    strong = config.augment.strong
    colours = ColorJitter(strong.brightness, strong.contrast, strong.saturation, strong.hue)
    strength = Strength(strong.scale, strong.jitter, colours, strong.blur, strong.blur_sigma)
    fields = {
        "image": maps.images,
        "label": targets.logit_target,
        "label_representation": targets.representation_target,
        "confidence": targets.confidence,
        "indicator": targets.indicator,
    }
    return {
        "ours": lambda: strong_augment(fields, strong, seed=0, step=0, rank=0, world_size=1),
        "per_image": lambda: augment_batch(
            maps.images, targets.logit_target, targets.confidence, strength, random.Random(0)
        ),
    }
