"""Jitter and blur against closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.augment.photometric import (
    BlurParams,
    JitterParams,
    apply_blur,
    apply_jitter,
    draw_blur,
    draw_jitter,
)
from trainers.config import StrongAugmentConfig

LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


def images(n: int = 2, size: int = 20) -> Tensor:
    """Colours from 0.3 to 0.7, so that nothing is clamped."""
    return 0.3 + 0.4 * torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def jitter(
    n: int,
    brightness: float = 1.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
    apply: bool = True,
) -> JitterParams:
    return JitterParams(
        torch.full((n,), apply), *(torch.full((n,), v) for v in (brightness, contrast, saturation, hue))
    )


def luminance(image: Tensor) -> Tensor:
    return torch.einsum("c,nchw->nhw", LUMINANCE, image)


def test_neutral_jitter_changes_nothing() -> None:
    assert torch.allclose(apply_jitter(images(), jitter(2)), images(), atol=1e-6)


def test_brightness_is_a_factor() -> None:
    assert torch.allclose(apply_jitter(images(), jitter(2, brightness=1.3)), images() * 1.3, atol=1e-6)


def test_no_contrast_and_no_saturation_leave_the_mean_grey() -> None:
    flat = apply_jitter(images(), jitter(2, contrast=0.0, saturation=0.0))
    assert torch.allclose(flat, luminance(images()).mean((1, 2))[:, None, None, None].expand_as(flat), atol=1e-6)


def test_no_saturation_leaves_the_luminance() -> None:
    grey = apply_jitter(images(), jitter(2, saturation=0.0))
    assert torch.allclose(grey, luminance(images())[:, None].expand_as(grey), atol=1e-6)


@pytest.mark.parametrize("turn", [0.1, 0.25, 0.5])
def test_hue_leaves_luminance_alone_and_a_whole_turn_is_none(turn: float) -> None:
    turned = apply_jitter(images(), jitter(2, hue=2 * math.pi * turn))
    assert torch.allclose(luminance(turned), luminance(images()), atol=1e-4)  # the chrominance rows sum to 1e-4
    assert not torch.allclose(turned, images(), atol=0.02)
    back = apply_jitter(turned, jitter(2, hue=2 * math.pi * (1 - turn)))
    assert torch.allclose(back, images(), atol=1e-4)


def test_thirds_of_a_turn_take_red_to_the_other_two_colours() -> None:
    red = torch.tensor([0.6, 0.4, 0.4])[None, :, None, None].expand(1, 3, 4, 4)
    turns = [apply_jitter(red, jitter(1, hue=2 * math.pi * third / 3))[0, :, 0, 0] for third in range(3)]
    assert {int(colour.argmax()) for colour in turns} == {0, 1, 2}


def test_images_that_are_not_chosen_stay_bit_for_bit() -> None:
    params = jitter(2, brightness=1.4, hue=1.0)._replace(apply=torch.tensor([True, False]))
    result = apply_jitter(images(), params)
    assert torch.equal(result[1], images()[1])
    assert not torch.equal(result[0], images()[0])
    blurred = apply_blur(images(), BlurParams(torch.tensor([True, False]), torch.tensor([1.0, 1.0])), 1.0)
    assert torch.equal(blurred[1], images()[1])
    assert not torch.equal(blurred[0], images()[0])


def test_results_are_clamped_to_the_range_of_images() -> None:
    result = apply_jitter(images(), jitter(2, brightness=2.0, contrast=3.0))
    assert (result.min(), result.max()) == (0, 1)


def test_blur_is_the_gaussian_convolution_of_each_image() -> None:
    sigmas = (0.4, 1.5)
    result = apply_blur(images(), BlurParams(torch.tensor([True, True]), torch.tensor(sigmas)), 1.5)
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    for image, blurred, sigma in zip(images(), result, sigmas, strict=True):
        kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
        kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
        padded = F.pad(image[:, None].double(), (5, 5, 5, 5), mode="replicate")
        assert torch.allclose(blurred.double(), F.conv2d(padded, kernel[None, None])[:, 0], atol=1e-6)


def test_a_blur_wider_than_the_image_and_a_tiny_one_are_finite() -> None:
    params = BlurParams(torch.tensor([True, True]), torch.tensor([20.0, 1e-6]))
    result = apply_blur(images(), params, 20.0)
    assert torch.isfinite(result).all()
    assert torch.equal(result[1], images()[1])


def test_draws_keep_to_their_ranges() -> None:
    config = StrongAugmentConfig(
        jitter=0.7, brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1, blur=0.4, blur_sigma=(0.5, 2.0)
    )
    params = draw_jitter(config, 4000, torch.Generator().manual_seed(0))
    assert abs(params.apply.float().mean() - 0.7) < 0.029  # four standard deviations
    ranges = (("brightness", 0.6, 1.4), ("contrast", 0.7, 1.3), ("saturation", 0.8, 1.2), ("hue", -0.2, 0.2))
    for name, low, high in ranges:
        values = getattr(params, name) / (math.pi if name == "hue" else 1)
        margin = 0.005 * (high - low)
        assert low - 1e-6 <= values.min() < low + margin
        assert high - margin < values.max() <= high + 1e-6
    blur = draw_blur(config, 4000, torch.Generator().manual_seed(0))
    assert abs(blur.apply.float().mean() - 0.4) < 0.031
    assert 0.5 <= blur.sigma.min() < 0.51
    assert 1.99 < blur.sigma.max() <= 2.0
