"""Plain vision transformers of timm (ViT, DINOv2, DINOv3) as four maps of features of one stride."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from trainers.colour import names_of
from trainers.config import ModelConfig
from trainers.config.model import PLAIN_VIT
from trainers.errors import ConfigError, first_line
from trainers.models.encoders import known_name
from trainers.models.heads import Normalise

LEVELS = 4
"""Maps that a decoder reads."""


class VitEncoder(nn.Module):
    """A ViT without its classifier, with the normalisation of images that its weights were made with.

    Images are resized to the nearest multiple of the patch, as UniMatch V2 evaluates them, and position embeddings to
    the grid of patches. Embeddings are resized as timm does it, which differs a little from Meta's code.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Make the network with random weights.

        Raises:
            ConfigError: timm has no such network, or it is no plain ViT for images of any size.
        """
        super().__init__()
        self.features = _create(config)
        depth = len(self.features.blocks)
        self.taps = [depth * level // LEVELS - 1 for level in range(1, LEVELS + 1)]
        """Blocks whose output is a map: the last of each quarter, of 12 blocks 2, 5, 8 and 11 as in UniMatch V2."""
        self.patch = int(max(self.features.patch_embed.patch_size))
        """Stride of the maps, in pixels."""
        self.channels = int(self.features.embed_dim)
        """Of each map."""
        known = self.features.pretrained_cfg
        self.normalise = Normalise(config.input, known["mean"], known["std"])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images [N, 3, H, W] in [0, 1] to four maps [N, C, H' / patch, W' / patch], H' and W' nearest to H, W."""
        size = [max(1, int(side / self.patch + 0.5)) * self.patch for side in images.shape[-2:]]
        if list(images.shape[-2:]) != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=True)
        maps: list[Tensor] = self.features.forward_intermediates(
            self.normalise(images), indices=self.taps, norm=True, intermediates_only=True
        )
        return maps

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters by depth: of the embeddings, of each block, of the last normalisation."""
        blocks = [list(block.parameters()) for block in self.features.blocks]
        last = list(self.features.norm.parameters())
        deeper = {id(parameter) for layer in (*blocks, last) for parameter in layer}
        return [[p for p in self.features.parameters() if id(p) not in deeper], *blocks, last]


def _create(config: ModelConfig) -> Any:
    """Return the network of timm, with random weights, that has been tried on two by three patches."""
    name = known_name(config)
    channels, reason = len(names_of(config.input.space, config.input.add)), ""
    try:
        features = timm.create_model(
            name,
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
            drop_path_rate=config.drop_path,
            in_chans=channels,
        )
        if isinstance(features, VisionTransformer | Eva):
            features.set_grad_checkpointing(config.checkpointing)
            _try(features, channels)
            return features
    except Exception as error:  # timm and its networks raise what they like: TypeError of a CNN, AssertionError, ...
        reason = f" ({first_line(error)})"
    raise ConfigError(
        f"model.encoder must be a plain ViT of images of any size for model.arch=dpt, got {name}{reason}: choose one, "
        f"as {PLAIN_VIT}, or set model.arch=light"
    )


@torch.no_grad()
def _try(features: Any, channels: int) -> None:
    height, width = features.patch_embed.patch_size
    features.eval().forward_intermediates(torch.zeros(1, channels, 2 * height, 3 * width), norm=True)
    features.train()
