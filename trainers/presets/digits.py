"""Presets on scenes of handwritten digits, which are embedded."""

from __future__ import annotations

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


def digits_css() -> TrainConfig:
    """CSS (mix) on scenes of handwritten digits: the embedded default, about a minute on one core.

    The thresholds are lower and the samples smaller than the paper's, for a network and maps that are much smaller.
    """
    return TrainConfig(
        data=DigitsData(),
        model=ModelConfig(arch="tiny", width=24, representation_dim=64),
        augment=AugmentConfig(
            weak=WeakAugmentConfig(scale=(0.9, 1.11)),
            strong=StrongAugmentConfig(scale=(0.8, 1.25), shift=0.15, blur=0.2),
        ),
        thresholds=ThresholdsConfig(delta_u=0.8),
        loss=LossConfig(queries=64, negatives=64, negative_groups=2),
        schedule=ScheduleConfig(steps=900, evaluate_every=50, labelled_batch=8, unlabelled_batch=8),
    )


def digits_supervised() -> TrainConfig:
    """Supervised-only on the labelled digits, with the same network, steps and augmentation of labelled images."""
    return supervised(digits_css())


def digits_oracle() -> TrainConfig:
    """Every training scene with its label: what the labels are worth on this data."""
    everything = DigitsData(labelled=DigitsData().labelled + DigitsData().unlabelled)
    return digits_supervised().model_copy(update={"data": everything})


def supervised(config: TrainConfig) -> TrainConfig:
    """Return the config with both unlabelled losses off; everything else as it was."""
    return config.model_copy(update={"loss": config.loss.model_copy(update={"lambda_u": 0.0, "lambda_c": 0.0})})
