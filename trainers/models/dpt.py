"""The DPT decoder on a plain ViT, as UniMatch V2 has it, with two heads as in CSS.

Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021; Yang et al., "UniMatch V2", arXiv 2410.10777,
whose decoder has no BatchNorm and none of the class token.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.models.heads import FINEST, Dense, Features, Heads, Norm
from trainers.models.network import Network
from trainers.models.vit import LEVELS, VitEncoder


class DptSegmenter(Network):
    """Four maps of a ViT, reassembled to 4, 2, 1 and 1/2 times its grid of patches and fused from the coarsest on.

    The finest is then resized to stride 4, where the heads are; the published one has its head at 8 times the grid.
    """

    def __init__(self, config: ModelConfig, num_classes: int, norm: Norm) -> None:
        super().__init__()
        self.encoder = VitEncoder(config)
        channels, width = self.encoder.channels, config.head_width
        self.feature_channels, self.inner_channels = (channels,) * LEVELS, channels
        # An eighth to all of the encoder's channels, as published for ViT-S and ViT-B.
        widths = [max(1, channels // 2**shift) for shift in (3, 2, 1, 0)]
        self.reassemble = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, inner, 1), _resize(inner, level), nn.Conv2d(inner, width, 3, padding=1, bias=False)
            )
            for level, inner in enumerate(widths)
        )
        self.fuse = nn.ModuleList(Fusion(width, level < len(widths) - 1) for level in range(len(widths)))
        self.heads = Heads(width, width, num_classes, config, norm)

    def encode(self, images: Tensor) -> Features:
        """Return four maps of the grid of patches, of which the third is the inner one."""
        maps: list[Tensor] = self.encoder(images)
        return Features(maps, maps[-2])

    def decode(self, maps: Sequence[Tensor], images: Tensor) -> Dense:
        """Reassemble, fuse and apply the heads."""
        maps = [part(each) for part, each in zip(self.reassemble, maps, strict=True)]
        finest = [-(-side // FINEST) for side in images.shape[-2:]]
        sizes = [finest, *(each.shape[-2:] for each in maps)]
        fused: Tensor | None = None
        for level in reversed(range(len(maps))):
            fused = self.fuse[level](maps[level], fused, sizes[level])
        dense: Dense = self.heads(fused)
        return dense

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the ViT."""
        return {"": self.encoder.features}

    def encoder_layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the ViT by depth."""
        return self.encoder.layers()

    def by_own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by timm's names, which may have Meta's or others that timm knows of this family.

        Position embeddings of other images are resized. What is of training alone, as a mask's token, is left out.
        """
        family = sys.modules[type(self.encoder.features).__module__]
        renamed: dict[str, Tensor] = family.checkpoint_filter_fn(dict(tensors), self.encoder.features)
        return renamed


class Fusion(nn.Module):
    """A level's map refined and added to what comes from the coarser ones; refined, resized and mixed again."""

    def __init__(self, width: int, has_coarser: bool) -> None:
        super().__init__()
        # The coarsest map is refined once: a unit that nothing is added to would be one without a use.
        self.own = Residual(width) if has_coarser else nn.Identity()
        self.both = Residual(width)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, own: Tensor, coarser: Tensor | None, size: Sequence[int]) -> Tensor:
        """Map [N, C, h, w], and the coarser levels' if there are any, to [N, C, *size]."""
        fused = self.own(own)
        if coarser is not None:
            fused = fused + coarser
        mixed: Tensor = self.mix(F.interpolate(self.both(fused), size=list(size), mode="bilinear", align_corners=True))
        return mixed


class Residual(nn.Module):
    """Two 3x3 convolutions behind activations, and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        refined: Tensor = maps + self.convolutions(maps)
        return refined


def _resize(channels: int, level: int) -> nn.Module:
    """Return what makes a map 4, 2, 1 or 1/2 times as large, by its level from 0 to 3."""
    if level < 2:
        factor = 4 >> level
        return nn.ConvTranspose2d(channels, channels, factor, factor)
    return nn.Identity() if level == 2 else nn.Conv2d(channels, channels, 3, 2, 1)
