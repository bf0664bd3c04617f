"""Cross-entropy losses (Eq. 7, 8) against slow references and published values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import supervision as slow
from reference.golden import golden

from trainers.css.supervision import (
    LossSum,
    confident_pixel_loss,
    hard_example_loss,
    image_share_loss,
    supervised_divisor,
    supervised_loss,
    unsupervised_divisor,
)


def mean(loss: LossSum) -> torch.Tensor:
    return loss.total / loss.divisor.clamp(min=1)


def draw(seed: int, ignored: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 4, (3, 4, 5), generator=draws)
    target[torch.rand(target.shape, generator=draws) < ignored] = 255
    return 3 * torch.randn(3, 4, 4, 5, generator=draws), target, torch.rand(3, 4, 5, generator=draws)


CASES = given(seed=st.integers(0, 10**6), ignored=st.sampled_from([0.0, 0.4, 0.95, 1.0]), threshold=st.floats(0, 1))
QUICKLY = settings(max_examples=25)
NEAR = {"rel_tol": 1e-5, "abs_tol": 1e-6}
"""At most 60 terms of order ten in float32."""


@QUICKLY
@CASES
def test_the_confident_pixel_loss_is_the_mean_over_confident_pixels(
    seed: int, ignored: float, threshold: float
) -> None:
    logits, target, confidence = draw(seed, ignored)
    expected = slow.confident_pixel_loss(
        logits.double().numpy(), target.numpy(), confidence.double().numpy(), threshold
    )
    assert math.isclose(mean(confident_pixel_loss(logits, target, confidence, threshold)).item(), expected, **NEAR)


@QUICKLY
@CASES
def test_the_image_share_loss_weights_each_image_by_its_confident_share(
    seed: int, ignored: float, threshold: float
) -> None:
    logits, target, confidence = draw(seed, ignored)
    expected = slow.image_share_loss(logits.double().numpy(), target.numpy(), confidence.double().numpy(), threshold)
    assert math.isclose(mean(image_share_loss(logits, target, confidence, threshold)).item(), expected, **NEAR)


@QUICKLY
@given(seed=st.integers(0, 10**6), ignored=st.sampled_from([0.0, 0.4, 1.0]))
def test_the_supervised_loss_is_the_mean_over_labelled_pixels(seed: int, ignored: float) -> None:
    logits, target, _ = draw(seed, ignored)
    everything = torch.ones(target.shape).double().numpy()
    expected = slow.confident_pixel_loss(logits.double().numpy(), target.numpy(), everything, 0.5)
    assert math.isclose(mean(supervised_loss(logits, target)).item(), expected, **NEAR)


def test_a_pixel_at_the_threshold_counts() -> None:
    logits, target, _ = draw(0, 0.0)
    assert confident_pixel_loss(logits, target, torch.full(target.shape, 0.75), 0.75).divisor.item() == target.numel()


@pytest.mark.parametrize("loss", [confident_pixel_loss, image_share_loss])
def test_where_every_pixel_is_ignored_loss_and_gradient_are_zero(loss) -> None:
    logits, _, confidence = draw(0, 0.0)
    value = mean(loss(logits.requires_grad_(), torch.full(confidence.shape, 255), confidence, 0.5))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0.0
    assert not gradient.any()


@QUICKLY
@CASES
def test_the_weight_of_an_image_never_exceeds_one(seed: int, ignored: float, threshold: float) -> None:
    logits, target, confidence = draw(seed, ignored)
    weighted, plain = image_share_loss(logits, target, confidence, threshold), supervised_loss(logits, target)
    assert weighted.total.item() <= plain.total.item() * (1 + 1e-5) + 1e-6


def test_the_confident_pixel_loss_is_the_published_equation() -> None:
    data = golden()
    loss = confident_pixel_loss(
        data["unsup_logits"], data["unsup_label"], data["unsup_confidence"], data["unsup_threshold"].item()
    )
    assert math.isclose(mean(loss).item(), data["unsup_per_pixel_value"].item(), rel_tol=1e-5)  # float32


def published_image_share(logits: torch.Tensor) -> torch.Tensor:
    """Our loss, each image with the published weight: theirs counts ignored pixels among the confident ones."""
    data = golden()
    target, threshold = data["unsup_label"], data["unsup_threshold"].item()
    total, labelled = torch.zeros(()), target != 255
    for image in range(len(target)):
        rows = slice(image, image + 1)
        ours = image_share_loss(logits[rows], target[rows], data["unsup_confidence"][rows], threshold)
        confident = (data["unsup_confidence"][image] >= threshold) & labelled[image]
        weight = confident.sum() / labelled[image].sum()
        total = total + ours.total * data["unsup_image_weights"][image] / weight
    return total / labelled.sum()


def test_the_image_share_loss_with_the_published_weights_is_the_published_one() -> None:
    data = golden()
    value = published_image_share(data["unsup_logits"]).item()
    assert math.isclose(value, data["unsup_image_share_value"].item(), rel_tol=1e-5)  # float32


def test_the_gradient_of_the_image_share_loss_with_the_published_weights_is_the_published_one() -> None:
    data = golden()
    logits = data["unsup_logits"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(published_image_share(logits), logits)
    assert torch.allclose(gradient, data["unsup_image_share_grad"], atol=1e-8)  # entries reach 6e-4, in float32


def test_an_image_without_confident_pixels_has_no_gradient() -> None:
    logits, target, confidence = draw(0, 0.3)
    confidence[1] = 0.1
    loss = image_share_loss(logits.requires_grad_(), target, confidence, 0.5)
    (gradient,) = torch.autograd.grad(loss.total, logits)
    assert gradient.flatten(1).abs().amax(1).gt(0).tolist() == [True, False, True]


WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0])


@QUICKLY
@given(seed=st.integers(0, 10**6), ignored=st.sampled_from([0.0, 0.4, 1.0]))
def test_class_weights_give_the_weighted_mean(seed: int, ignored: float) -> None:
    logits, target, _ = draw(seed, ignored)
    loss = supervised_loss(logits, target, WEIGHTS)
    expected = slow.weighted_mean(logits.double().numpy(), target.numpy(), WEIGHTS.tolist())
    assert math.isclose((loss.total / loss.divisor.clamp(min=1e-9)).item(), expected, **NEAR)


@QUICKLY
@given(
    seed=st.integers(0, 10**6),
    ignored=st.sampled_from([0.0, 0.4, 0.95, 1.0]),
    threshold=st.floats(0, 1),
    min_kept=st.integers(1, 25),
    scope=st.sampled_from(["image", "batch"]),
)
def test_mining_keeps_hard_pixels_and_at_least_so_many_an_image_or_a_batch(
    seed: int, ignored: float, threshold: float, min_kept: int, scope: str
) -> None:
    logits, target, _ = draw(seed, ignored)
    loss = hard_example_loss(logits, target, threshold, min_kept, scope=scope)
    hard_examples = slow.hard_examples if scope == "image" else slow.hard_examples_of_a_batch
    kept = hard_examples(logits.double().numpy(), target.numpy(), threshold, min_kept)
    expected = supervised_loss(logits, torch.where(torch.from_numpy(kept), target, 255))
    assert loss.divisor.item() == kept.sum()
    assert math.isclose(loss.total.item(), expected.total.item(), **NEAR)


def test_mining_weights_the_classes_of_the_pixels_that_it_keeps() -> None:
    logits, target, _ = draw(seed=3, ignored=0.4)
    loss = hard_example_loss(logits, target, 1.0, 1, WEIGHTS)  # every pixel is hard
    assert torch.equal(loss.total, supervised_loss(logits, target, WEIGHTS).total)


def test_mining_an_image_without_labels_costs_nothing() -> None:
    logits = torch.randn(2, 4, 4, 5, requires_grad=True)
    loss = hard_example_loss(logits, torch.full((2, 4, 5), 255), 0.7, 3)
    loss.total.backward()
    assert (loss.total.item(), loss.divisor.item()) == (0.0, 0.0)
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("kind", ["pixel", "pixel_by_share", "all_pixels", "image_share"])
def test_divisors_are_known_before_any_logit(kind: str) -> None:
    logits, target, confidence = draw(seed=1, ignored=0.4)
    divisor = unsupervised_divisor(target, confidence, 0.5, kind)
    if kind == "all_pixels":
        assert divisor == (target != 255).sum()
    else:
        loss = image_share_loss if kind == "image_share" else confident_pixel_loss
        assert divisor == loss(logits, target, confidence, 0.5).divisor
    assert supervised_divisor(target, WEIGHTS) == supervised_loss(logits, target, WEIGHTS).divisor
