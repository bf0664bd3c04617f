"""The fully convolutional discriminator of maps of classes of Hung et al. (2018, arXiv 1802.07934)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
"""Of the leaky ReLUs."""


class Judgement(NamedTuple):
    """Logits of the probability that a pixel is of a label and not of a student, [N, 1, H, W] float32."""

    for_student: Tensor
    """Of the student's maps, with a gradient for these and none for the discriminator."""
    of_student: Tensor
    """The same, with a gradient for the discriminator and none for the maps."""
    of_truth: Tensor
    """Of the labels, with a gradient for the discriminator."""


class Discriminator(nn.Module):
    """Five 4x4 convolutions of stride 2 with leaky ReLUs between them, resized to the size of the maps."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        widths = (num_classes, width, 2 * width, 4 * width, 8 * width, 1)
        self.layers = nn.ModuleList(nn.Conv2d(*both, kernel_size=4, stride=2, padding=1) for both in pairwise(widths))

    def forward(self, probs: Tensor, truth: Tensor) -> Judgement:
        """Judge a student's maps [N, K, H, W], whose classes sum to 1, and labels as such maps [M, K, H, W]."""
        own = self._logits(torch.cat([probs.detach(), truth]), frozen=False)
        of_student, of_truth = torch.split(own, [len(probs), len(truth)])
        return Judgement(self._logits(probs, frozen=True), of_student, of_truth)

    def judge(self, probs: Tensor) -> Tensor:
        """Map [N, K, H, W] to logits [N, 1, H, W], without a gradient for the discriminator."""
        return self._logits(probs, frozen=True)

    def _logits(self, maps: Tensor, frozen: bool) -> Tensor:
        size, layers = maps.shape[-2:], cast("Iterable[nn.Conv2d]", self.layers)
        for index, layer in enumerate(layers):
            weight, bias = layer.weight, cast("Tensor", layer.bias)
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            maps = F.conv2d(F.leaky_relu(maps, SLOPE) if index else maps, weight, bias, stride=2, padding=1)
        return F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=True)
