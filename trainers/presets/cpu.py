"""Presets for a CPU: scenes of handwritten digits, which are embedded, and CamVid's street scenes."""

from __future__ import annotations

import os
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
from trainers.config.model import BUNDLED
from trainers.overrides import apply_overrides

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


def supervised(config: TrainConfig) -> TrainConfig:
    """Return the config with both unlabelled losses off; everything else as it was."""
    return config.model_copy(update={"loss": config.loss.model_copy(update={"lambda_u": 0.0, "lambda_c": 0.0})})


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


def camvid_other_drive() -> TrainConfig:
    """CSS (mix) as in `camvid_two_drives`, without any training image of the third drive, which is scored.

    A gain of `camvid_two_drives` is one of adaptation, for its unlabelled images are of the drive that is scored.
    """
    return apply_overrides(camvid_two_drives(), {"data.train_from": "000*", "data.dev": 30})


def camvid_other_drives() -> TrainConfig:
    """CSS (mix) as in `camvid_other_drive`, the drives exchanged: the third is trained on, the other two are scored."""
    return apply_overrides(
        camvid_two_drives(),
        {"data.train_from": "0016E5*", "data.labelled_from": "*", "data.val": "train", "data.val_from": "000*",
         "data.dev": 30},
    )  # fmt: skip


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


def camvid_lite0(labelled: int = 40) -> TrainConfig:
    """CSS (mix) on CamVid, labelled images drawn from all drives, from EfficientNet-Lite0's ImageNet weights.

    A light network for a CPU; its weights come from the package of the extra `bundled`, without a download.
    """
    return apply_overrides(
        camvid_css(),
        {
            "data.labelled": labelled,
            "model.arch": "light",
            "model.encoder": BUNDLED,
            "model.backbone_weights": "bundled",
            "model.head_width": 64,
            "model.representation_init": "centred",
            "optimizer.kind": "adamw",
            "optimizer.lr": 0.001,
            "schedule.steps": 1000,
            "evaluation.quality_images": 16,
        },
    )
