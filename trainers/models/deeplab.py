"""DeepLabV3+ (Chen et al., 2018) on torchvision's ResNets or an encoder of timm, with two heads as in CSS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from trainers.config import ModelConfig
from trainers.models.heads import Dense, Features, Heads, Norm, Normalise, conv, first_cells
from trainers.models.network import Network

ASPP_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
LOW_LEVEL_CHANNELS = 48
DEEP_STEM_CHANNELS = (64, 64, 128)

RESNETS = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
}


class DeepLabV3Plus(Network):
    """Encoder, ASPP, low-level features of stride 4 (48 channels) and two heads at stride 4."""

    def __init__(self, config: ModelConfig, num_classes: int, norm: Norm) -> None:
        super().__init__()
        self.feature_channels = low, deep = self._take_encoder(config, norm)
        self.aspp = Aspp(deep, config.aspp_width, ASPP_RATES[config.output_stride], norm, config.pool_norm)
        self.low_level = conv(low, LOW_LEVEL_CHANNELS, norm, kernel=1)
        self.heads = Heads(config.aspp_width + LOW_LEVEL_CHANNELS, config.head_width, num_classes, config, norm)

    def _take_encoder(self, config: ModelConfig, norm: Norm) -> tuple[int, int]:
        """Make the encoder and return the channels of its low-level and of its deepest features."""
        raise NotImplementedError

    def decode(self, maps: Sequence[Tensor], images: Tensor) -> Dense:
        """Apply the pyramid to the features of the deepest stride, join those of stride 4, and apply the heads."""
        low, deep = maps
        deep = F.interpolate(self.aspp(deep), size=low.shape[-2:], mode="bilinear", align_corners=True)
        features = torch.cat([deep, self.low_level(low)], dim=1)
        dense: Dense = self.heads(first_cells(features, images))
        return dense


class ResNetDeepLab(DeepLabV3Plus):
    """DeepLabV3+ on a ResNet of torchvision.

    torchvision dilates bottleneck blocks only; here the strides of any ResNet are turned into dilation after it is
    built, in the same way: the first block of a layer keeps the dilation of the layer before.
    """

    def _take_encoder(self, config: ModelConfig, norm: Norm) -> tuple[int, int]:
        net = RESNETS[config.backbone](norm_layer=norm)
        normalise = Normalise(config.input)
        if config.stem == "deep":
            _deepen_stem(net, norm, normalise.channels)
        elif normalise.channels != net.conv1.in_channels:
            net.conv1 = _draw(_with_inputs(net.conv1, normalise.channels))
        _replace_stride_with_dilation(net, config.output_stride)
        self.stem = nn.Sequential(normalise, net.conv1, net.bn1, net.relu, net.maxpool)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        deep: int = net.fc.in_features
        self.inner_channels = deep // 2
        return deep // 8, deep

    def encode(self, images: Tensor) -> Features:
        """Return the features of layer1 and of layer4, and those of layer3."""
        low = self.layer1(self.stem(images))
        inner = self.layer3(self.layer2(low))
        return Features((low, self.layer4(inner)), inner)

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the parts of the encoder by torchvision's names, which are those of published weights."""
        return {
            "conv1": self.stem[1],
            "bn1": self.stem[2],
            "layer1": self.layer1,
            "layer2": self.layer2,
            "layer3": self.layer3,
            "layer4": self.layer4,
        }


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3 and image-level features, projected to one width."""

    def __init__(self, inputs: int, width: int, rates: tuple[int, int, int], norm: Norm, pool_norm: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv(inputs, width, norm, kernel=1), *(conv(inputs, width, norm, dilation=r) for r in rates)]
        )
        # Normalised, a batch of one image would have one value a channel.
        features = conv(inputs, width, norm, kernel=1) if pool_norm else (nn.Conv2d(inputs, width, 1), nn.ReLU(True))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), *features)
        self.project = conv(5 * width, width, norm, kernel=1)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, width, h, w]."""
        pooled = self.pooled(features).expand(-1, -1, *features.shape[-2:])
        projected: Tensor = self.project(torch.cat([*(branch(features) for branch in self.branches), pooled], dim=1))
        return projected


def _deepen_stem(net: models.ResNet, norm: Norm, channels: int) -> None:
    """Replace the 7x7 convolution by three 3x3 ones, the first of stride 2; layer1 then takes 128 channels.

    The names are those of published deep-stem weights: conv1.0, conv1.1, conv1.3, conv1.4, conv1.6 and bn1.
    """
    first, second, last = DEEP_STEM_CHANNELS
    net.conv1 = nn.Sequential(
        *conv(channels, first, norm, stride=2),
        *conv(first, second, norm),
        nn.Conv2d(second, last, 3, padding=1, bias=False),
    )
    net.bn1 = norm(last)
    block = net.layer1[0]
    block.conv1 = _with_inputs(block.conv1, last)
    if block.downsample is None:  # a basic block, whose shortcut was the identity
        outputs = block.conv2.out_channels
        block.downsample = nn.Sequential(nn.Conv2d(last, outputs, 1, bias=False), norm(outputs))
    else:
        block.downsample[0] = _with_inputs(block.downsample[0], last)
    for part in (net.conv1, block.conv1, block.downsample):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                _draw(module)


def _with_inputs(old: nn.Conv2d, inputs: int) -> nn.Conv2d:
    kernel, padding = old.kernel_size[0], old.padding[0]
    return nn.Conv2d(inputs, old.out_channels, kernel, old.stride[0], int(padding), bias=False)


def _draw(convolution: nn.Conv2d) -> nn.Conv2d:
    """Draw the weights as torchvision does when it builds the rest."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


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
