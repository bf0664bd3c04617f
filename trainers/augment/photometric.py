"""Colour jitter, loss of colour and Gaussian blur, each image with its own parameters; labels do not see them.

Sums of products are written out: as matrix products or convolutions they would be rounded under TF32 or autocast, and
could differ between a batch and its halves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.augment.maps import per_image
from trainers.colour import YIQ
from trainers.config import PhotometricConfig

_TO_YIQ = np.array(YIQ)
_LUMINANCE: list[float] = _TO_YIQ[0].tolist()
_GREY = np.tile(_TO_YIQ[0], (3, 1))
_QUARTER_TURN = np.linalg.inv(_TO_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _TO_YIQ
# As numbers, for a tensor of them would be copied to the device in every step.
_WEIGHTS: list[list[list[float]]] = np.stack([_GREY, np.eye(3) - _GREY, _QUARTER_TURN], -1).tolist()
"""For each colour of the result and of the image: shares of the luminance, the chrominance, its quarter turn."""


class JitterParams(NamedTuple):
    """One number an image: float32 [N], `apply` bool [N]."""

    apply: Tensor
    brightness: Tensor
    """Factor of all colours."""
    contrast: Tensor
    """Factor of the distance to the image's mean grey."""
    saturation: Tensor
    """Factor of the chrominance."""
    hue: Tensor
    """Rotation of the chrominance, radians."""


class BlurParams(NamedTuple):
    """One number an image: float32 [N], `apply` bool [N]."""

    apply: Tensor
    sigma: Tensor
    """Standard deviation in pixels."""


class GreyParams(NamedTuple):
    """One row an image."""

    apply: Tensor
    """bool [N]."""


def draw_jitter(config: PhotometricConfig, count: int, generator: torch.Generator) -> JitterParams:
    """Draw for `count` images: factors from 1 +- the config's, rotation within +- `hue` of the circle."""
    draws = torch.rand(count, 5, generator=generator)
    around = 2 * draws - 1
    return JitterParams(
        apply=draws[:, 0] < config.jitter,
        brightness=1 + config.brightness * around[:, 1],
        contrast=1 + config.contrast * around[:, 2],
        saturation=1 + config.saturation * around[:, 3],
        hue=2 * math.pi * config.hue * around[:, 4],
    )


def draw_blur(config: PhotometricConfig, count: int, generator: torch.Generator) -> BlurParams:
    """Draw for `count` images: sigma uniform in the config's range."""
    draws = torch.rand(count, 2, generator=generator)
    low, high = config.blur_sigma
    return BlurParams(apply=draws[:, 0] < config.blur, sigma=low + (high - low) * draws[:, 1])


def draw_grey(config: PhotometricConfig, count: int, generator: torch.Generator) -> GreyParams:
    """Draw for `count` images."""
    return GreyParams(apply=torch.rand(count, generator=generator) < config.grey)


def apply_jitter(image: Tensor, params: JitterParams) -> Tensor:
    """Change brightness, contrast, then saturation and hue, and clamp once at the end.

    With b, c, s, t of `params`, m the image's mean luminance, Y luminance and Q a quarter turn of the chrominance:

        u = c b x + (1 - c) b m,    result = Y(u) + s cos(t) (u - Y(u)) + s sin(t) Q(u)

    Hue is thus linear and leaves luminance alone, unlike a rotation in HSV; all of it is one 3 x 3 matrix an image.

    Args:
        image: float32 [N, 3, H, W] in [0, 1].
        params: Rows of these images, on their device.
    """
    gain = params.contrast * params.brightness
    offset = (1 - params.contrast) * params.brightness * _weighted(image, _LUMINANCE).mean((-2, -1))
    along, across = params.saturation * torch.cos(params.hue), params.saturation * torch.sin(params.hue)
    jittered = torch.empty_like(image).copy_(per_image(offset))
    for out, weights in zip(jittered.unbind(1), _WEIGHTS, strict=True):
        for colour, (luminance, chrominance, turned) in zip(image.unbind(1), weights, strict=True):
            share = gain * (luminance + chrominance * along + turned * across)
            out.addcmul_(colour, share[:, None, None])
    return torch.where(per_image(params.apply), jittered.clamp_(0, 1), image)


def apply_grey(image: Tensor, params: GreyParams) -> Tensor:
    """Give all three colours their luminance; image [N, 3, H, W], `params` on its device."""
    return torch.where(per_image(params.apply), _weighted(image, _LUMINANCE).unsqueeze(1), image)


def apply_blur(image: Tensor, params: BlurParams, largest_sigma: float) -> Tensor:
    """Blur with a Gaussian of each image's sigma, cut at three times the largest; edges are repeated.

    Args:
        image: float32 [N, 3, H, W] in [0, 1].
        params: Rows of these images, on their device.
        largest_sigma: The config's, which fixes the kernel's size: 2 ceil(3 sigma) + 1.
    """
    radius = math.ceil(3 * largest_sigma)
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / params.sigma[:, None]).square())
    weights = weights / weights.sum(1, keepdim=True)
    blurred = image
    for axis in (-2, -1):
        blurred = _convolve(blurred, weights, radius, axis)
    return torch.where(per_image(params.apply), blurred.clamp(0, 1), image)


def _convolve(image: Tensor, weights: Tensor, radius: int, axis: int) -> Tensor:
    margin = (0, 0, radius, radius) if axis == -2 else (radius, radius, 0, 0)
    padded = F.pad(image, margin, mode="replicate")
    size = image.shape[axis]
    total = torch.zeros_like(image)
    for tap in range(2 * radius + 1):
        total.addcmul_(padded.narrow(axis, tap, size), per_image(weights[:, tap]))
    return total


def _weighted(image: Tensor, weights: list[float]) -> Tensor:
    """Return the weighted sum of the three channels, [N, H, W]."""
    red, green, blue = image.unbind(1)
    return weights[0] * red + weights[1] * green + weights[2] * blue
