"""CSS (mix) on DINOv2, with what UniMatch V2 publishes of the network, the optimizer, the crops and the horizon.

UniMatch V2: Yang, Zhao, Zhao, arXiv 2410.10777, and the code of its authors (configs/pascal.yaml,
configs/cityscapes.yaml, fixmatch.py, dataset/semi.py, model/semseg/dpt.py). Its method is `--method unimatch_v2`, and
the FixMatch that it compares with `--method fixmatch`; with grey images as well, `trainers.presets.unimatch`.

Ours besides: bfloat16, heads at stride 4, dev held back of the training images, no random grey images, and boxes of
CutMix whose aspect always fits (published: 0.3 to 3.33, drawn again until the box does).
"""

from __future__ import annotations

from typing import Literal

from trainers.config import (
    AnyData,
    AugmentConfig,
    ComputeConfig,
    EmaConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    StrongAugmentConfig,
    ThresholdsConfig,
    TrainConfig,
    WeakAugmentConfig,
)
from trainers.presets.paper import cityscapes_css, voc_css

Size = Literal["small", "base"]
FUSED = {"small": 64, "base": 128}
"""Channels of the decoder (fixmatch.py, model_configs)."""


def voc_dinov2(size: Size, labelled: int) -> TrainConfig:
    """CSS (mix) on PASCAL VOC 2012 with DINOv2 and UniMatch V2's settings: set VOC_ROOT, SBD_ROOT.

    The weights are timm's download, until `model.backbone_weights` names a file.
    """
    # 4 + 4 images on each of 4 GPUs; 60 epochs of 655 steps, those of the 10 490 unlabelled images beside 92 labels.
    schedule = ScheduleConfig(steps=39_300, evaluate_every=1965, labelled_batch=16, unlabelled_batch=16)
    return _settings(voc_css(labelled).data, size, 518, schedule, EvaluationConfig(batch=8), LossConfig(lambda_c=1.0))


def cityscapes_dinov2(size: Size, labelled: int) -> TrainConfig:
    """CSS (mix) on Cityscapes with DINOv2 and UniMatch V2's settings: set CITYSCAPES_ROOT.

    The weights are timm's download, until `model.backbone_weights` names a file.
    """
    # 2 + 2 images on each of 4 GPUs; 180 epochs of 349 steps, those of the 2789 unlabelled images beside 186 labels.
    schedule = ScheduleConfig(steps=62_820, evaluate_every=3141, labelled_batch=8, unlabelled_batch=8)
    evaluation = EvaluationConfig(mode="sliding", window=(798, 798), batch=4)
    # 200 000 pixels of the two images of a GPU.
    loss = LossConfig(lambda_c=1.0, supervised="ohem", ohem_scope="batch", ohem_min_kept=100_000)
    return _settings(cityscapes_css(labelled).data, size, 798, schedule, evaluation, loss)


def _settings(
    data: AnyData, size: Size, crop: int, schedule: ScheduleConfig, evaluation: EvaluationConfig, loss: LossConfig
) -> TrainConfig:
    return TrainConfig(
        data=data,
        model=ModelConfig(
            arch="dpt",
            encoder=f"vit_{size}_patch14_dinov2",
            backbone_weights="pretrained",
            head_width=FUSED[size],
            representation_dim=256,
            norm="none",
        ),
        augment=AugmentConfig(
            weak=WeakAugmentConfig(scale=(0.5, 2.0), scale_draw="uniform", flip=0.5, crop=(crop, crop)),
            strong=StrongAugmentConfig(
                jitter=0.8,
                brightness=0.5,
                contrast=0.5,
                saturation=0.5,
                hue=0.25,
                blur=0.5,
                blur_sigma=(0.1, 2.0),
                mix_probability=0.5,
                box_area=(0.02, 0.4),
                box_aspect=(0.4, 2.5),
            ),
        ),
        thresholds=ThresholdsConfig(delta_u=0.95),
        # The published divisor of L_u: all pixels that are no padding.
        loss=loss.model_copy(update={"unsupervised": "all_pixels"}),
        ema=EmaConfig(teacher_momentum=0.996),
        # Published: 5e-6 for the encoder and 40 times as much for the rest.
        optimizer=OptimizerConfig(kind="adamw", lr=2e-4, encoder_lr_factor=1 / 40, weight_decay=0.01),
        schedule=schedule,
        evaluation=evaluation,
        compute=ComputeConfig(precision="bfloat16"),
    )
