"""UniMatch and UniMatch V2 with their published data, network, optimizer and horizon.

UniMatch: Yang et al., CVPR 2023, arXiv 2208.09910, and its code (configs/pascal.yaml, unimatch.py, dataset/semi.py,
model/). UniMatch V2: as in `trainers.presets.dinov2`. `trainers.methods` says what of the methods is different here.

Ours besides what stands there: momentum is Nesterov's; of UniMatch the heads have one 3x3 convolution where it has
two, and the encoder is torchvision's, where its own has a deep stem (`model.stem=deep` takes its file). There is no
preset of UniMatch on Cityscapes: versions of its repository differ in crop, batch, threshold and OHEM.
"""

from __future__ import annotations

from trainers.config import ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from trainers.methods import METHODS
from trainers.overrides import apply_overrides
from trainers.presets.dinov2 import Size, cityscapes_dinov2, voc_dinov2

GREY = 0.2
"""Published probability of a grey image (dataset/semi.py)."""


def voc_unimatch_v2(size: Size, labelled: int) -> TrainConfig:
    """UniMatch V2 on PASCAL VOC 2012 with DINOv2: set VOC_ROOT, SBD_ROOT."""
    return _v2(voc_dinov2(size, labelled))


def cityscapes_unimatch_v2(size: Size, labelled: int) -> TrainConfig:
    """UniMatch V2 on Cityscapes with DINOv2: set CITYSCAPES_ROOT."""
    return _v2(cityscapes_dinov2(size, labelled))


def voc_unimatch(labelled: int) -> TrainConfig:
    """UniMatch on PASCAL VOC 2012 with DeepLabV3+ on a ResNet-101: set VOC_ROOT, SBD_ROOT."""
    # 2 + 2 images on each of 4 GPUs; 80 epochs of 1311 steps, those of the 10 490 unlabelled images beside 92 labels.
    base = voc_dinov2("base", labelled)  # data and augmentation are the same
    schedule = ScheduleConfig(steps=104_880, evaluate_every=5244, labelled_batch=8, unlabelled_batch=8)
    model = ModelConfig(
        arch="deeplabv3plus",
        backbone="resnet101",
        backbone_weights="imagenet",
        representation_dim=256,
        norm="auto",
        pool_norm=True,
    )
    # 0.001 for the encoder and ten times as much for the rest.
    optimizer = OptimizerConfig(lr=0.01, encoder_lr_factor=0.1, weight_decay=1e-4)
    changed = base.model_dump() | {"schedule": schedule, "model": model, "optimizer": optimizer}
    changed["augment"]["weak"]["crop"] = (321, 321)
    changed["augment"]["strong"]["grey"] = GREY
    return apply_overrides(TrainConfig.model_validate(changed), METHODS["unimatch"])


def _v2(base: TrainConfig) -> TrainConfig:
    return apply_overrides(base, {**METHODS["unimatch_v2"], "augment.strong.grey": GREY})
