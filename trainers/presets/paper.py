"""Presets of the paper's four data sets, with its published settings.

What is published, and where, stands field by field in `tests/unit/trainers/test_published.py`. Ours, in all: bfloat16;
the objective is measured on training images that are held back (`data.dev`), where the published code picks the best
epoch on the validation set that it reports; labelled images are drawn with `data.seed`, every class among them, until
`data.labelled` names a published list.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trainers.config import (
    Ade20kData,
    AugmentConfig,
    CityscapesData,
    CocoStuffData,
    ComputeConfig,
    CssConfig,
    EvaluationConfig,
    LabelledAugmentConfig,
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
from trainers.methods import METHODS
from trainers.overrides import apply_overrides

COLOURS: Mapping[str, Any] = {
    "brightness": 0.25, "contrast": 0.25, "saturation": 0.25, "hue": 0.25, "blur_sigma": (0.15, 1.15),
}  # fmt: skip
"""Strength of jitter and blur, of labelled and unlabelled images alike (published code)."""


def voc_css(labelled: int) -> TrainConfig:
    """CSS (mix) on PASCAL VOC 2012 with some of its 1464 labels (classic): set VOC_ROOT, SBD_ROOT.

    The other training images, of 10 582 with SBD's, are unlabelled, but for dev, which is drawn from SBD's, so that it
    is the same for every number of labels.
    """
    sbd = os.environ.get("SBD_ROOT")
    root = _root("VOC_ROOT", "voc")
    return _full_size(VocData(root=root, sbd_root=Path(sbd) if sbd else None, labelled=labelled, dev=500))


def voc_blender_css(labelled: int) -> TrainConfig:
    """CSS (mix) on PASCAL VOC 2012 with some of its 10 582 labels (blender, with SBD's): set VOC_ROOT, SBD_ROOT."""
    return apply_overrides(voc_css(labelled), {"data.labelled_from": "augmented"})


def voc_released(labelled: int) -> TrainConfig:
    """CSS (mix) on PASCAL VOC 2012 as the published code runs it: `css_mix_released`, its batch and its iterations.

    Its scripts hand 8 + 8 images to each of four GPUs, for 80 000 iterations.
    """
    schedule = {"schedule.labelled_batch": 32, "schedule.unlabelled_batch": 32, "schedule.steps": 80_000}
    return apply_overrides(voc_css(labelled), {**METHODS["css_mix_released"], **schedule})


def cityscapes_css(labelled: int) -> TrainConfig:
    """CSS (mix) on Cityscapes with some of its 2975 fine labels: set CITYSCAPES_ROOT.

    As published, with OHEM and sliding windows; the published code scores one random crop an image instead.
    """
    data = CityscapesData(root=_root("CITYSCAPES_ROOT", "cityscapes"), labelled=labelled, dev=150)
    return _full_size(
        data,
        crop=(768, 768),
        labelled_scale=(1.0, 1.0),
        strong_scale=(0.5, 2.0),
        lr=0.0038,
        loss={"supervised": "ohem", "ohem_scope": "batch"},
        schedule=_schedule(80_000, evaluate_every=4000, batch=4),
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


def _schedule(steps: int, evaluate_every: int, batch: int = 8) -> ScheduleConfig:
    return ScheduleConfig(
        steps=steps, evaluate_every=evaluate_every, labelled_batch=batch, unlabelled_batch=batch, joint_forward=False
    )


def _full_size(
    data: PublishedData,
    crop: tuple[int, int] = (512, 512),
    labelled_scale: tuple[float, float] = (0.5, 1.5),
    strong_scale: tuple[float, float] = (0.5, 1.5),
    lr: float = 0.0064,
    loss: Mapping[str, Any] = MappingProxyType({}),
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
            norm="auto",
            pool_norm=True,
        ),
        css=CssConfig(cross_warmup=20, cross_warmup_unit="labelled_epochs"),
        augment=AugmentConfig(
            weak=WeakAugmentConfig(crop=crop),
            labelled=LabelledAugmentConfig(
                scale=labelled_scale, scale_draw="uniform", flip=0.5, jitter=0.8, blur=0.5, **COLOURS
            ),
            strong=StrongAugmentConfig(
                scale=strong_scale,
                scale_draw="uniform",
                place="anywhere",
                flip=0.5,
                order="mix_first",
                box="half",
                **COLOURS,
            ),
        ),
        thresholds=thresholds or ThresholdsConfig(),
        loss=LossConfig(lambda_c=1.0, **loss),
        optimizer=OptimizerConfig(lr=lr, min_lr=1e-4, min_lr_rule="max"),
        schedule=schedule or _schedule(40_000, evaluate_every=2000),
        evaluation=evaluation or EvaluationConfig(mode="whole", batch=8),
        compute=ComputeConfig(precision="bfloat16"),
        seed=3407,
    )


def _root(variable: str, folder: str) -> Path:
    return Path(os.environ.get(variable, f"data/{folder}"))
