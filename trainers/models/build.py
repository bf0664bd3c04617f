"""Build the network that a config describes."""

from __future__ import annotations

import torch
from torch import nn

from trainers.config import ModelConfig
from trainers.models.heads import norm_layer
from trainers.models.tiny import TinySegmenter


def build_model(config: ModelConfig, num_classes: int, seed: int, device: torch.device) -> nn.Module:
    """Return the network on the device, in channels_last, initialised from `seed` alone.

    Initialisation draws from the global generator; its state is put back, so building a model changes nothing else.
    """
    norm = norm_layer(config.norm, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module
        if config.arch == "tiny":
            model = TinySegmenter(config.width, num_classes, config.representation_dim, norm)
        else:
            # Imported here: torchvision takes seconds to import, and the tiny network needs none of it.
            from trainers.models.deeplab import DeepLabV3Plus

            model = DeepLabV3Plus(
                config.backbone,
                config.backbone_weights,
                config.output_stride,
                num_classes,
                config.representation_dim,
                norm,
            )
    model.to(device)
    return model.to(memory_format=torch.channels_last)
