"""DeepLabV3+ on torchvision's ResNets (Chen et al., 2018), with two heads as in CSS."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from trainers.models.heads import Dense, Heads, Norm, Normalise, conv

ASPP_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
ASPP_CHANNELS = 256
LOW_LEVEL_CHANNELS = 48

RESNETS = {
    "resnet18": (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": (models.resnet34, models.ResNet34_Weights.IMAGENET1K_V1),
    "resnet50": (models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1),
    "resnet101": (models.resnet101, models.ResNet101_Weights.IMAGENET1K_V1),
}


class DeepLabV3Plus(nn.Module):
    """Encoder, ASPP, low-level features of layer1 (48 channels) and two heads at stride 4.

    torchvision dilates bottleneck blocks only; here the strides of any ResNet are turned into dilation after it is
    built, in the same way: the first block of a layer keeps the dilation of the layer before.
    """

    def __init__(
        self, backbone: str, weights: str, output_stride: int, num_classes: int, representation_dim: int, norm: Norm
    ) -> None:
        super().__init__()
        build, imagenet = RESNETS[backbone]
        net = build(weights=imagenet if weights == "imagenet" else None, norm_layer=norm)
        _replace_stride_with_dilation(net, output_stride)
        self.stem = nn.Sequential(Normalise(), net.conv1, net.bn1, net.relu, net.maxpool)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        deep = net.fc.in_features
        low = deep // 8
        self.aspp = Aspp(deep, ASPP_RATES[output_stride], norm)
        self.low_level = conv(low, LOW_LEVEL_CHANNELS, norm, kernel=1)
        self.heads = Heads(ASPP_CHANNELS + LOW_LEVEL_CHANNELS, 256, num_classes, representation_dim, norm)

    def forward(self, images: Tensor) -> Dense:
        """Map images [N, 3, H, W] in [0, 1] to maps of height H / 4 and width W / 4 (rounded up)."""
        low = self.layer1(self.stem(images))
        deep = self.aspp(self.layer4(self.layer3(self.layer2(low))))
        deep = F.interpolate(deep, size=low.shape[-2:], mode="bilinear", align_corners=True)
        dense: Dense = self.heads(torch.cat([deep, self.low_level(low)], dim=1))
        return dense


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3 and image-level features, projected to 256 channels."""

    def __init__(self, inputs: int, rates: tuple[int, int, int], norm: Norm) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv(inputs, ASPP_CHANNELS, norm, kernel=1),
                *(conv(inputs, ASPP_CHANNELS, norm, dilation=r) for r in rates),
            ]
        )
        # No normalisation after pooling: a batch of one image would have one value a channel.
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, ASPP_CHANNELS, 1), nn.ReLU(inplace=True))
        self.project = conv(5 * ASPP_CHANNELS, ASPP_CHANNELS, norm, kernel=1)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, 256, h, w]."""
        pooled = self.pooled(features).expand(-1, -1, *features.shape[-2:])
        projected: Tensor = self.project(torch.cat([*(branch(features) for branch in self.branches), pooled], dim=1))
        return projected


def _replace_stride_with_dilation(net: models.ResNet, output_stride: int) -> None:
    dilation = 1
    for layer, stride in ((net.layer2, 8), (net.layer3, 16), (net.layer4, 32)):
        if stride <= output_stride:
            continue
        previous, dilation = dilation, dilation * 2
        for index, block in enumerate(layer):
            for module in block.modules():
                if isinstance(module, nn.Conv2d):
                    _dilate(module, previous if index == 0 and module.stride == (2, 2) else dilation)


def _dilate(module: nn.Conv2d, dilation: int) -> None:
    module.stride = (1, 1)
    if module.kernel_size == (3, 3):
        module.dilation = module.padding = (dilation, dilation)
