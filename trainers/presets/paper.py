"""Presets of the paper's four data sets, with its published settings.

Published: network, crop, batch, learning rate, iterations, losses, the numbers of labelled images. Ours, in all: the
objective is measured on training images that are held back (`data.dev`), where the published code picks the best epoch
on the validation set that it reports; labelled images are drawn with `data.seed`, every class among them, until
`data.labelled` names a published list.
"""

from __future__ import annotations

import os
from pathlib import Path

from trainers.config import (
    Ade20kData,
    AugmentConfig,
    CityscapesData,
    CocoStuffData,
    ComputeConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PublishedData,
    ScheduleConfig,
    StrongAugmentConfig,
    ThresholdsConfig,
    TrainConfig,
    VocData,
    WeakAugmentConfig,
)


def voc_css(labelled: int) -> TrainConfig:
    """CSS (mix) on PASCAL VOC 2012 with some of its 1464 labels (classic): set VOC_ROOT, SBD_ROOT.

    The other training images, of 10 582 with SBD's, are unlabelled, but for dev, which is drawn from SBD's, so that it
    is the same for every number of labels.
    """
    sbd = os.environ.get("SBD_ROOT")
    root = _root("VOC_ROOT", "voc")
    return _full_size(VocData(root=root, sbd_root=Path(sbd) if sbd else None, labelled=labelled, dev=500))


def cityscapes_css_186() -> TrainConfig:
    """CSS (mix) on Cityscapes with 186 of its 2975 fine labels: set CITYSCAPES_ROOT.

    As published, with OHEM and sliding windows; the published code scores one random crop an image instead.
    """
    data = CityscapesData(root=_root("CITYSCAPES_ROOT", "cityscapes"), labelled=186, dev=150)
    return _full_size(
        data,
        crop=(768, 768),
        loss=LossConfig(supervised="ohem"),
        optimizer=OptimizerConfig(lr=0.0038),
        schedule=ScheduleConfig(steps=80_000, evaluate_every=4000, labelled_batch=4, unlabelled_batch=4),
        evaluation=EvaluationConfig(mode="sliding", window=(768, 768), batch=4),
    )


def ade20k_css() -> TrainConfig:
    """CSS (mix) on ADE20K, K = 150, with an eighth of its 20 210 labels: set ADE20K_ROOT.

    Published: learning rate, crop, batch and iterations. Ours: the number of labels, and delta_w and delta_s as shares
    of what the similarity indicator can reach, for with 150 classes it cannot reach the published delta_s of 0.97.
    """
    data = Ade20kData(root=_root("ADE20K_ROOT", "ADEChallengeData2016"), labelled=2526, dev=500)
    return _full_size(
        data, schedule=_schedule(80_000, evaluate_every=4000), thresholds=ThresholdsConfig(unit="of_maximum")
    )


def coco_stuff_css() -> TrainConfig:
    """CSS (mix) on COCO-Stuff 10K, K = 171, with an eighth of its 9000 labels: set COCO_STUFF_ROOT.

    Published: learning rate, crop, batch and iterations. Ours: as in `ade20k_css`.
    """
    data = CocoStuffData(root=_root("COCO_STUFF_ROOT", "cocostuff-10k"), labelled=1125, dev=500)
    return _full_size(data, thresholds=ThresholdsConfig(unit="of_maximum"))


def _schedule(steps: int, evaluate_every: int) -> ScheduleConfig:
    return ScheduleConfig(steps=steps, evaluate_every=evaluate_every, labelled_batch=8, unlabelled_batch=8)


def _full_size(
    data: PublishedData,
    crop: tuple[int, int] = (512, 512),
    loss: LossConfig | None = None,
    optimizer: OptimizerConfig | None = None,
    schedule: ScheduleConfig | None = None,
    evaluation: EvaluationConfig | None = None,
    thresholds: ThresholdsConfig | None = None,
) -> TrainConfig:
    """Return the published settings, which are those of VOC where nothing else is given."""
    return TrainConfig(
        data=data,
        model=ModelConfig(
            arch="deeplabv3plus",
            backbone="resnet101",
            backbone_weights="imagenet",
            output_stride=8,
            representation_dim=256,
        ),
        augment=AugmentConfig(
            weak=WeakAugmentConfig(scale=(0.5, 2.0), flip=0.5, crop=crop), strong=StrongAugmentConfig(mix="cutmix")
        ),
        thresholds=thresholds or ThresholdsConfig(),
        loss=loss or LossConfig(),
        optimizer=optimizer or OptimizerConfig(lr=0.0064),
        schedule=schedule or _schedule(40_000, evaluate_every=2000),
        evaluation=evaluation or EvaluationConfig(mode="whole", batch=8),
        compute=ComputeConfig(precision="bfloat16"),
        seed=3407,
    )


def _root(variable: str, folder: str) -> Path:
    return Path(os.environ.get(variable, f"data/{folder}"))
