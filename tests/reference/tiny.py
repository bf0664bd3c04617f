"""The smallest training run in which every part of a step acts."""

from collections.abc import Mapping
from typing import Any

from trainers.config import (
    AugmentConfig,
    DigitsData,
    LossConfig,
    ModelConfig,
    ScheduleConfig,
    StrongAugmentConfig,
    ThresholdsConfig,
    TrainConfig,
    WeakAugmentConfig,
)
from trainers.overrides import apply_overrides


def tiny_config(overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """20 steps of 4 + 4 images of 32 px. The thresholds are low, so that a network this young passes them."""
    config = TrainConfig(
        data=DigitsData(image_size=32, labelled=8, unlabelled=16, dev=8),
        model=ModelConfig(width=8, representation_dim=16),
        augment=AugmentConfig(
            weak=WeakAugmentConfig(scale=(0.85, 1.18)), strong=StrongAugmentConfig(scale=(0.8, 1.25), shift=0.15)
        ),
        thresholds=ThresholdsConfig(delta_u=0.3, delta_w=0.1, delta_s=0.5),
        loss=LossConfig(queries=16, negatives=16, negative_groups=2),
        schedule=ScheduleConfig(steps=20, evaluate_every=4, labelled_batch=4, unlabelled_batch=4, evaluation_batch=8),
    )
    return apply_overrides(config, overrides or {})
