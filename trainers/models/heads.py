"""Output of every network, its two heads, and normalisation layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.errors import ConfigError

Norm = Callable[[int], nn.Module]
"""Builds a normalisation layer for a number of channels."""

FINEST = 4
"""Stride of the output of every network, in pixels a cell."""


class Features(NamedTuple):
    """Output of an encoder."""

    maps: Sequence[Tensor]
    """[N, C, h, w], for the decoder, the finest first."""
    inner: Tensor
    """[N, C, h, w], of the stage before the deepest one, for an auxiliary head."""


class Dense(NamedTuple):
    """Output of a network for each cell of its stride-4 map."""

    logits: Tensor
    """[N, K, h, w], of the classes."""
    representations: Tensor
    """[N, D, h, w], not normalised."""
    auxiliary: Tensor | None = None
    """[N, K, h', w'], logits of the auxiliary head, of a network in training that has one."""

    def of(self, images: slice) -> Dense:
        """Return the output for some of the images."""
        auxiliary = None if self.auxiliary is None else self.auxiliary[images]
        return Dense(self.logits[images], self.representations[images], auxiliary)


def norm_layer(name: str, device: torch.device) -> Norm:
    """Return the builder of a normalisation layer.

    Raises:
        ConfigError: `sync_batch` away from CUDA, where PyTorch has none.
    """
    if name == "auto":
        name = "sync_batch" if device.type == "cuda" else "batch"
    if name == "sync_batch" and device.type != "cuda":
        raise ConfigError(f"model.norm=sync_batch needs CUDA, this rank computes on {device.type}: use batch or group")
    if name == "none":
        return nn.Identity
    if name == "group":
        return lambda channels: nn.GroupNorm(8, channels)
    return nn.SyncBatchNorm if name == "sync_batch" else nn.BatchNorm2d


def conv(inputs: int, outputs: int, norm: Norm, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return convolution, normalisation, ReLU; the size is kept at stride 1. Without normalisation there is a bias."""
    padding, bias = dilation * (kernel // 2), norm is nn.Identity
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=bias), norm(outputs), nn.ReLU(inplace=True)
    )


def first_cells(maps: Tensor, images: Tensor) -> Tensor:
    """Return the cells of maps [N, C, h, w] that lie in images [N, 3, H, W], which may have been padded behind them.

    Height H / 4 and width W / 4, rounded up.
    """
    height, width = images.shape[-2:]
    return maps[..., : -(-height // FINEST), : -(-width // FINEST)]


@torch.no_grad()
def centre(layer: nn.Conv2d) -> None:
    """Subtract from each row of a 1x1 convolution its mean, and drop the bias: what all its inputs share is lost."""
    layer.weight -= layer.weight.mean(dim=1, keepdim=True)
    if layer.bias is not None:
        layer.bias.zero_()


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Centre images in [0, 1] as the encoder's weights ask for, so that networks take images as they are stored."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        """Make the constants.

        Args:
            mean: of red, green and blue in [0, 1]; the default is ImageNet's.
            std: likewise.
        """
        super().__init__()
        # Constants, not state: they are in no checkpoint.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, 3, H, W] in [0, 1] to (images - mean) / std."""
        normalised: Tensor = (images - self.mean) / self.std
        return normalised


class Heads(nn.Module):
    """Segmentation head g and representation head h, both Conv3x3-norm-ReLU-Conv1x1 on the same features."""

    def __init__(self, inputs: int, hidden: int, num_classes: int, config: ModelConfig, norm: Norm) -> None:
        super().__init__()
        self.segment = nn.Sequential(conv(inputs, hidden, norm), nn.Conv2d(hidden, num_classes, 1))
        features = conv(inputs, hidden, norm)
        last = nn.Conv2d(hidden, config.representation_dim, 1)
        if config.representation_init == "centred":
            centre(last)
        self.represent = nn.Sequential(features, last)

    def forward(self, features: Tensor) -> Dense:
        """Map features [N, C, h, w] to logits [N, K, h, w] and representations [N, D, h, w], both float32."""
        return Dense(self.segment(features).float(), self.represent(features).float())
