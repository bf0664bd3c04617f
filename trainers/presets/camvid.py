"""Presets on CamVid: street scenes that a CPU can train on."""

from __future__ import annotations

import os
from pathlib import Path

from trainers.config import (
    AugmentConfig,
    CssConfig,
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

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip


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
