"""The references that speed is measured against compute what they are said to compute."""

import math
import random

import pytest
import torch
from reference.golden import golden
from reference.per_class_pseudo_labels import mixed_labels
from reference.per_image_augment import Strength, augment_batch
from reference.per_query_contrast import Losses, Pixels, matrix_product_losses, per_query_losses
from reference.tiny import tiny_config
from torchvision.transforms import ColorJitter

from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import collaborate, pseudo_labels
from trainers.models.heads import Dense

each_reference = pytest.mark.parametrize("losses", [per_query_losses, matrix_product_losses])


def golden_pixels() -> Pixels:
    data = golden()
    label = torch.where(data["contrast_valid_mask"] > 0, data["contrast_label"], 255)
    indicator = data["contrast_indicator"].gather(1, label.clamp(max=20).unsqueeze(1)).squeeze(1)
    hard = indicator < data["contrast_strong_threshold"]
    return Pixels(data["contrast_rep"], label, hard, data["contrast_prototypes_after"])


@each_reference
def test_the_mean_of_a_contrast_reference_is_the_published_one(losses: Losses) -> None:
    data, pixels = golden(), golden_pixels()
    tau = data["contrast_temperature"].item()
    draws = torch.Generator().manual_seed(0)
    values = torch.stack([torch.stack([*losses(pixels, 32, 64, tau, draws).values()]).sum() / 8 for _ in range(40)])
    error = math.hypot(values.std().item() / math.sqrt(40), data["contrast_loss_se_q32_m64"].item())
    assert abs(values.mean().item() - data["contrast_loss_mean_q32_m64"].item()) < 3 * error


@each_reference
def test_gradients_of_a_contrast_reference_reach_hard_pixels_only(losses: Losses) -> None:
    pixels = golden_pixels()
    rep = pixels.representations.clone().requires_grad_()
    per_class = losses(pixels._replace(representations=rep), 64, 8, 0.5, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(torch.stack([*per_class.values()]).sum(), rep)
    reached = gradient.abs().sum(1) > 0
    assert reached.any()
    assert not (reached & ~(pixels.hard & (pixels.label != 255))).any()


def test_the_reference_of_the_pseudo_labels_finds_what_the_trainer_finds() -> None:
    draws = torch.Generator().manual_seed(0)
    logits, rep = torch.randn(2, 11, 6, 6, generator=draws), torch.randn(2, 8, 6, 6, generator=draws)
    prototypes = torch.randn(11, 8, generator=draws)
    theirs = mixed_labels(logits, rep, prototypes, 0.25, (21, 21))
    labels = pseudo_labels(Dense(logits, rep), Prototypes(prototypes, torch.ones(11, dtype=torch.bool)), 0.25, (21, 21))
    ours = collaborate(labels, tiny_config({"css.label_strategy": "mix"}), warming_up=False)
    assert torch.equal(theirs.label, ours.logit_target)
    # float32, cosines divided by a temperature of 0.25.
    assert torch.allclose(theirs.confidence, ours.confidence, atol=1e-6)
    assert torch.allclose(theirs.indicator, ours.indicator, atol=1e-6)


def test_the_reference_of_the_augmentation_rounds_confidences_to_8_bits() -> None:
    images, label = torch.rand(2, 3, 24, 24), torch.randint(0, 5, (2, 24, 24))
    strength = Strength((1.0, 1.0), 0.0, ColorJitter(), 0.0, (0.1, 1.0))
    _, _, confidence = augment_batch(images, label, torch.full((2, 24, 24), 0.97), strength, random.Random(0))
    assert torch.equal(confidence, torch.full((2, 24, 24), 247 / 255))


def test_the_reference_of_the_augmentation_returns_maps_of_the_same_shapes_and_ranges() -> None:
    images, label = torch.rand(3, 3, 24, 20), torch.randint(0, 5, (3, 24, 20))
    strength = Strength((0.5, 1.5), 1.0, ColorJitter(0.4, 0.4, 0.4, 0.1), 1.0, (0.1, 1.0))
    image, labels, confidence = augment_batch(images, label, torch.rand(3, 24, 20), strength, random.Random(0))
    assert (image.shape, labels.shape, confidence.shape) == (images.shape, label.shape, label.shape)
    assert 0 <= image.min() <= image.max() <= 1
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
