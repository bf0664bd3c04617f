"""Output of every network, its two heads, and normalisation layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.colour import LINEAR, RGB, STATISTICS, channels_of, names_of
from trainers.config import ModelConfig
from trainers.config.model import InputConfig
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
    variances: Tensor | None = None
    """[N, D, h, w] in (0, 1), where representations are Gaussians with these variances."""
    auxiliary: Tensor | None = None
    """[N, K, h', w'], logits of the auxiliary head, of a network in training that has one."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Dense:
        """Return what is made of each of the maps."""
        return Dense(*(None if maps is None else change(maps) for maps in self))  # type: ignore[arg-type]

    def of(self, images: slice) -> Dense:
        """Return the output for some of the images."""
        return self.each(lambda maps: maps[images])


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
    """Channels of images in [0, 1], centred as the encoder's weights ask for: networks take images as they are stored.

    Where the input is not rgb alone, channels have means and standard deviations of their own (`STATISTICS`); the mean
    of a linear channel is that of the mean colour, so that 0, as in a border, is the same colour in all linear spaces.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, config: InputConfig, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        """Make the constants.

        Args:
            config: the channels.
            mean: of red, green and blue in [0, 1]; the default is ImageNet's.
            std: likewise.
        """
        super().__init__()
        self.config, self.rgb_std = config, tuple(std)
        known = dict(zip(RGB, zip(mean, std, strict=True), strict=True)) | STATISTICS
        means, stds = zip(*(known[name] for name in names_of(config.space, config.add)), strict=True)
        if config.space in LINEAR:
            colour = [sum(part * of for part, of in zip(row, mean, strict=True)) for row in LINEAR[config.space]]
            means = (*colour, *means[len(colour) :])
        self.channels = len(means)
        """C, of what the network's first convolution takes."""
        self.stds = stds
        # Constants, not state: they are in no checkpoint.
        self.register_buffer("mean", torch.tensor(means).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(stds).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, 3, H, W] in [0, 1] to (channels - mean) / std, [N, C, H, W]."""
        normalised: Tensor = (channels_of(images, self.config.space, self.config.add) - self.mean) / self.std
        return normalised

    def of_channels(self, kernel: Tensor) -> Tensor:
        """Return a kernel [O, 3, h, w] of centred RGB as one of these channels, [O, C, h, w]: the same function.

        With M the matrix of the space and S, D the standard deviations of rgb and of its channels: W S^-1 M^-1 D; added
        maps have zeros.
        """
        inverse = np.linalg.inv(LINEAR[self.config.space]) * np.array(self.stds[: len(RGB)])
        back = torch.from_numpy(inverse / np.array(self.rgb_std)[:, None])
        colours = torch.einsum("oihw,ic->ochw", kernel.double(), back).to(kernel.dtype)
        return F.pad(colours, (0, 0, 0, 0, 0, self.channels - len(RGB)))


VARIANCE_HEAD = "heads.variance."
"""What the names of the variance head's parameters hold."""

_LEAST_VARIANCE = 1e-6


class Heads(nn.Module):
    """Segmentation head g and representation head h, both Conv3x3-norm-ReLU-Conv1x1 on the same features.

    Of Gaussians there is a third for their variances, Conv1x1-norm-ReLU-Conv1x1-sigmoid.
    """

    def __init__(self, inputs: int, hidden: int, num_classes: int, config: ModelConfig, norm: Norm) -> None:
        super().__init__()
        self.segment = nn.Sequential(conv(inputs, hidden, norm), nn.Conv2d(hidden, num_classes, 1))
        features = conv(inputs, hidden, norm)
        last = nn.Conv2d(hidden, config.representation_dim, 1)
        if config.representation_init == "centred":
            centre(last)
        self.represent = nn.Sequential(features, last)
        self.variance: nn.Module | None = None
        if config.representation == "gaussian":  # made last: the other heads start as they do without it
            self.variance = nn.Sequential(
                conv(inputs, hidden, norm, kernel=1), nn.Conv2d(hidden, config.representation_dim, 1)
            )

    def forward(self, features: Tensor) -> Dense:
        """Map features [N, C, h, w] to logits [N, K, h, w] and representations [N, D, h, w], all float32."""
        logits, representations = self.segment(features).float(), self.represent(features).float()
        if self.variance is None:
            return Dense(logits, representations)
        variances = self.variance(features).float().sigmoid().clamp(min=_LEAST_VARIANCE)
        return Dense(logits, representations, variances)
