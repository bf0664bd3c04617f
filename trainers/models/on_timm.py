"""Networks on encoders of timm: DeepLabV3+, and a light one for small machines."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.models.deeplab import DeepLabV3Plus
from trainers.models.encoders import TimmEncoder
from trainers.models.heads import Dense, Features, Heads, Norm, conv, first_cells
from trainers.models.network import Network


class TimmDeepLab(DeepLabV3Plus):
    """DeepLabV3+ on a network of timm."""

    def _take_encoder(self, config: ModelConfig, norm: Norm) -> tuple[int, int]:
        self.encoder = TimmEncoder(config, norm)
        self.inner_channels = self.encoder.inner_channels
        return self.encoder.channels[0], self.encoder.channels[-1]

    def encode(self, images: Tensor) -> Features:
        """Return features of stride 4 and of the deepest stride, of padded images."""
        (low, *_, deep), inner = self.encoder.with_inner(images)
        return Features((low, deep), inner)

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the network of timm."""
        return {"": self.encoder.features}


class LightSegmenter(Network):
    """1x1 projections of all maps from stride 4 on, resized and summed as in panoptic feature pyramids.

    Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, with single convolutions in place of stages.
    """

    def __init__(self, config: ModelConfig, num_classes: int, norm: Norm) -> None:
        super().__init__()
        width = config.head_width
        self.encoder = TimmEncoder(config, norm)
        self.feature_channels, self.inner_channels = self.encoder.channels, self.encoder.inner_channels
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), norm(width)) for channels in self.encoder.channels
        )
        self.fuse = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            norm(width),
            conv(width, width, norm, kernel=1),
        )
        self.heads = Heads(width, width, num_classes, config, norm)

    def encode(self, images: Tensor) -> Features:
        """Return all maps from stride 4 on, of padded images."""
        return self.encoder.with_inner(images)

    def decode(self, maps: Sequence[Tensor], images: Tensor) -> Dense:
        """Add up the projections and apply the heads."""
        finest, *coarser = (project(each) for project, each in zip(self.projections, maps, strict=True))
        for each in coarser:
            finest = finest + F.interpolate(each, size=finest.shape[-2:], mode="bilinear", align_corners=False)
        dense: Dense = self.heads(self.fuse(first_cells(finest, images)))
        return dense

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the network of timm."""
        return {"": self.encoder.features}
