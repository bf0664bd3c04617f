"""Presets: functions that return a whole config."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from trainers.config import (
    AugmentConfig,
    CssConfig,
    DigitsData,
    FolderData,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    StrongAugmentConfig,
    ThresholdsConfig,
    TrainConfig,
    WeakAugmentConfig,
)
from trainers.errors import ConfigError

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip


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


def camvid_css() -> TrainConfig:
    """CSS (mix) on CamVid at 240 x 180 with 40 labelled images and a ResNet-18; set data.root or CAMVID_ROOT."""
    return TrainConfig(
        data=FolderData(
            root=Path(os.environ.get("CAMVID_ROOT", "data/camvid")),
            classes=CAMVID_CLASSES,
            ignore_values=(11, 255),
            height=180,
            width=240,
            labelled=40,
            dev=60,
        ),
        model=ModelConfig(arch="deeplabv3plus", backbone="resnet18", output_stride=16, representation_dim=64),
        augment=AugmentConfig(
            weak=WeakAugmentConfig(scale=(0.75, 1.75), flip=0.5, crop=(128, 128)),
            strong=StrongAugmentConfig(),
        ),
        css=CssConfig(),
        thresholds=ThresholdsConfig(delta_u=0.9),
        loss=LossConfig(),
        optimizer=OptimizerConfig(lr=0.02),
        schedule=ScheduleConfig(steps=600, evaluate_every=100, labelled_batch=4, unlabelled_batch=4),
    )


def supervised(config: TrainConfig) -> TrainConfig:
    """Return the config with both unlabelled losses off; everything else as it was."""
    return config.model_copy(update={"loss": config.loss.model_copy(update={"lambda_u": 0.0, "lambda_c": 0.0})})


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "digits_css": digits_css,
    "digits_supervised": digits_supervised,
    "digits_oracle": digits_oracle,
    "camvid_css": camvid_css,
}


def load_preset(name: str) -> TrainConfig:
    """Return the config of a preset.

    Raises:
        ConfigError: there is no preset of this name.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of them"
        raise ConfigError(f"a preset must be one of {', '.join(PRESETS)}, got {name!r}: {hint}")
    return PRESETS[name]()
