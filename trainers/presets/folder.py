"""The preset for images of one's own: `s4 init` writes the file that says where they are and what their masks mean."""

from __future__ import annotations

from pathlib import Path

from trainers.config import (
    AugmentConfig,
    EvaluationConfig,
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


def folder_css() -> TrainConfig:
    """CSS (mix) on a folder of images and masks, from random weights: set data.root, data.classes, height and width.

    Network, losses and schedule are those of `camvid_two_drives`, the setting of photographs that was measured
    (trainers/RESULTS.md); the network is small enough for a CPU. Nothing depends on the data's classes: their weights
    are counted, and delta_w and delta_s are shares of what the similarity indicator can reach with K classes.
    """
    return TrainConfig(
        data=FolderData(root=Path("data"), classes=("background", "object"), height=240, width=320),
        model=ModelConfig(arch="tiny", width=24, representation_dim=32, representation_init="centred"),
        augment=AugmentConfig(weak=WeakAugmentConfig(flip=0.5, crop=(96, 96)), strong=StrongAugmentConfig()),
        thresholds=ThresholdsConfig(delta_u=0.9, unit="of_maximum"),
        loss=LossConfig(
            class_weights="auto",
            unsupervised="image_share",
            lambda_c=0.02,
            temperature=0.2,
            queries=64,
            negatives=128,
        ),
        optimizer=OptimizerConfig(kind="adamw", lr=0.003),
        schedule=ScheduleConfig(
            steps=2500, evaluate_every=250, labelled_batch=4, unlabelled_batch=4, joint_forward=False
        ),
        evaluation=EvaluationConfig(quality_images=16),
    )
