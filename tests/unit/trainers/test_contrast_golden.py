"""The contrastive loss (Eq. 9) in expectation against published values."""

import math
from typing import NamedTuple

import pytest
import torch
from reference.golden import golden
from torch import Tensor

from trainers.config import LossConfig
from trainers.css.contrast import PixelPool, build_pool, contrastive_loss
from trainers.css.prototypes import Prototypes, one_hot

K = 21


class Draws(NamedTuple):
    size: str
    losses: Tensor
    """One a draw."""
    gradient: Tensor
    """Its mean over the draws, with respect to the representations."""
    gradient_error: float
    """Norm of that mean's standard error."""


def pool() -> PixelPool:
    data = golden()
    valid = torch.where(data["contrast_valid_mask"] > 0, data["contrast_label"], 255)
    indicator = (data["contrast_indicator"] * one_hot(valid, K)).sum(1)
    return build_pool(valid, indicator < data["contrast_strong_threshold"], K)


@pytest.fixture(scope="module", params=[(256, 512, 40), (32, 64, 100)], ids=["q256_m512", "q32_m64"])
def draws(request: pytest.FixtureRequest) -> Draws:
    queries, negatives, count = request.param
    data, pixels = golden(), pool()
    after = data["contrast_prototypes_after"]
    prototypes = Prototypes(after, after.abs().sum(1) > 0)
    config = LossConfig(queries=queries, negatives=negatives, temperature=data["contrast_temperature"].item())
    losses, gradients = [], []
    for seed in range(count):
        rep = data["contrast_rep"].clone().requires_grad_()
        per_class = contrastive_loss(rep, pixels, prototypes, pixels.hard, config, torch.Generator().manual_seed(seed))
        loss = per_class.sum() / (pixels.counts > 0).sum()
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, rep)[0])
    stack = torch.stack(gradients)
    error = stack.std(0) / math.sqrt(count)
    return Draws(f"q{queries}_m{negatives}", torch.stack(losses).double(), stack.mean(0), error.norm().item())


def test_the_mean_loss_is_the_published_one(draws: Draws) -> None:
    data = golden()
    mine = draws.losses.std().item() / math.sqrt(len(draws.losses))
    error = math.hypot(mine, data[f"contrast_loss_se_{draws.size}"].item())
    assert abs(draws.losses.mean().item() - data[f"contrast_loss_mean_{draws.size}"].item()) < 3 * error


def test_the_mean_gradient_is_the_published_one(draws: Draws) -> None:
    data = golden()
    error = math.hypot(draws.gradient_error, data[f"contrast_grad_se_norm_{draws.size}"].item())
    distance = (draws.gradient - data[f"contrast_grad_mean_{draws.size}"]).norm().item()
    # The distance of two means of the same distribution is about the norm of their combined standard error; thousands
    # of coordinates leave it little room. The mean gradient itself is 20 (q256) and 9 (q32) times as long.
    assert distance < 1.5 * error


def test_sharing_negatives_in_groups_hardly_widens_the_spread_of_a_draw(draws: Draws) -> None:
    spread = golden()[f"contrast_loss_std_{draws.size}"].item()
    # The spread of 40 draws is itself uncertain by 11 %.
    assert draws.losses.std().item() < 1.5 * spread


def test_the_pool_counts_what_is_present_and_what_is_hard() -> None:
    pixels = pool()
    assert int((pixels.counts > 0).sum()) == 8
    assert pixels.counts[7].item() > 0
    assert pixels.hard[7].item() == 0
