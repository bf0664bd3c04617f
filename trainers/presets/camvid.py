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
from trainers.overrides import apply_overrides

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


def camvid_two_drives() -> TrainConfig:
    """CSS (mix) on CamVid with 40 labelled images of two of the three drives, and a network for a CPU.

    The images of one drive look alike, so 40 drawn from all of them leave little to be learned from the others. Here
    the drives 0001TP and 0006R0 are labelled; the third, of which all official validation images are, is not. Classes
    weigh as the square root of the median of their shares of all training pixels by their own.
    """
    return apply_overrides(
        camvid_css(),
        {
            "data.labelled_from": "000*",
            "model.arch": "tiny",
            "model.width": 24,
            "model.representation_dim": 32,
            "model.representation_init": "centred",
            "augment.weak.scale": (1.0, 1.0),
            "augment.weak.crop": (96, 96),
            "loss.class_weights": (0.52, 0.44, 2.14, 0.38, 1.0, 0.68, 1.96, 2.0, 0.87, 2.65, 3.92),
            "loss.unsupervised": "image_share",
            "loss.lambda_c": 0.02,
            "loss.temperature": 0.2,
            "loss.queries": 64,
            "loss.negatives": 128,
            "optimizer.kind": "adamw",
            "optimizer.lr": 0.003,
            "schedule.steps": 2500,
            "schedule.evaluate_every": 500,
            "schedule.joint_forward": False,
            "evaluation.quality_images": 16,
        },
    )
