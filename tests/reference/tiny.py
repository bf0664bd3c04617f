"""The smallest training run in which every part of a step acts, and how two states are compared."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainers.config import (
    AugmentConfig,
    CssConfig,
    DigitsData,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    ScheduleConfig,
    StrongAugmentConfig,
    ThresholdsConfig,
    TrainConfig,
    WeakAugmentConfig,
)
from trainers.css.prototypes import Prototypes
from trainers.overrides import apply_overrides
from trainers.step import StepOutput, added_up, css_step
from trainers.targets import Batch, StepContext


def tiny_config(overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """20 steps of 4 + 4 images of 32 px. The thresholds suit a network this young: some pixels pass them."""
    config = TrainConfig(
        data=DigitsData(image_size=32, labelled=8, unlabelled=16, dev=8),
        model=ModelConfig(width=8, representation_dim=16),
        augment=AugmentConfig(
            weak=WeakAugmentConfig(scale=(0.85, 1.18)), strong=StrongAugmentConfig(scale=(0.8, 1.25), shift=0.15)
        ),
        css=CssConfig(indicator_temperature=0.01),
        thresholds=ThresholdsConfig(delta_u=0.3, delta_w=0.05, delta_s=0.12),
        loss=LossConfig(queries=16, negatives=16, negative_groups=2),
        schedule=ScheduleConfig(steps=20, evaluate_every=4, labelled_batch=4, unlabelled_batch=4),
        evaluation=EvaluationConfig(batch=8, quality_images=8),
    )
    return apply_overrides(config, overrides or {})


def differences(one: object, other: object, path: str = "") -> list[str]:
    """Where two nested states differ by as much as a bit; none where they are the same."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        missing = [f"{path}/{key}" for key in one.keys() ^ other.keys()]
        shared = [key for key in one if key in other]
        return missing + [where for key in shared for where in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = zip(one, other, strict=True)
        return [where for at, (mine, theirs) in enumerate(pairs) for where in differences(mine, theirs, f"{path}/{at}")]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [path]
    return [] if type(one) is type(other) and one == other else [path]


def whole_step(
    student: nn.Module,
    teacher: nn.Module,
    prototypes: Prototypes,
    batch: Batch,
    config: TrainConfig,
    context: StepContext,
    discriminator: nn.Module | None = None,
) -> StepOutput:
    """The step of a config that takes it in one part, or in one of each of two students."""
    parts = list(css_step(student, teacher, prototypes, batch, config, context, None, discriminator))
    assert len(parts) == config.model.students
    return added_up(parts) if len(parts) > 1 else parts[0]
