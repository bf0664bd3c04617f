"""Run a network in the configured precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.config import TrainConfig
from trainers.models.heads import Dense


def forward(model: nn.Module, images: Tensor, config: TrainConfig) -> Dense:
    """Return what a network says of images [N, 3, H, W] in [0, 1]: float32, whatever precision it computes in."""
    reduced = config.compute.precision == "bfloat16"
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=reduced):
        dense: Dense = model(images)
    return dense
