"""The contrastive loss (Eq. 9) against a slow reference, closed forms and its laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import contrast as slow
from torch import Tensor

from trainers.config import LossConfig
from trainers.css import contrast
from trainers.css.contrast import build_pool, contrastive_loss, draw_samples
from trainers.css.prototypes import Prototypes

K, D, TAU = 4, 5, 0.4


def case(seed: int = 0) -> slow.Case:
    """12 pixels, two of them not valid: classes 0 and 1 have hard and easy pixels, 2 has easy ones only, 3 has none."""
    rng = np.random.default_rng(seed)
    label = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 255, 255]).reshape(1, 3, 4)
    hard = np.array([1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0], dtype=bool).reshape(1, 3, 4)
    prototypes = {class_: rng.normal(size=D) for class_ in range(K)}
    return slow.Case(rng.normal(size=(1, D, 3, 4)), label, hard, prototypes, TAU)


def tensors(of: slow.Case) -> tuple[Tensor, Tensor, Tensor, Prototypes]:
    values, seen = torch.zeros(K, D), torch.zeros(K, dtype=torch.bool)
    for class_, value in of.prototypes.items():
        values[class_], seen[class_] = torch.from_numpy(value).float(), True
    maps = torch.from_numpy(of.representations).float(), torch.from_numpy(of.label), torch.from_numpy(of.hard)
    return *maps, Prototypes(values, seen)


def losses(of: slow.Case, config: LossConfig, seed: int = 0) -> Tensor:
    representations, label, hard, prototypes = tensors(of)
    pool = build_pool(label, hard, K)
    return contrastive_loss(representations, pool, prototypes, pool.hard, config, torch.Generator().manual_seed(seed))


def settings_of(queries: int, negatives: int, groups: int = 1) -> LossConfig:
    return LossConfig(queries=queries, negatives=negatives, negative_groups=groups, temperature=TAU)


def mean_and_error(of: slow.Case, config: LossConfig, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """[K] each, over draws of the loss."""
    values = torch.stack([losses(of, config, seed) for seed in range(draws)]).double().numpy()
    return values.mean(0), values.std(0, ddof=1) / math.sqrt(draws)


@pytest.mark.parametrize(("negatives", "groups"), [(1, 1), (2, 1), (2, 4)])
def test_the_mean_over_draws_is_the_exact_expectation(negatives: int, groups: int) -> None:
    expected = slow.expected_losses(case(), negatives)
    mean, error = mean_and_error(case(), settings_of(64, negatives, groups), draws=100)
    for class_ in (0, 1):
        # Four standard errors: two classes in three configurations, seeds fixed.
        assert abs(mean[class_] - expected[class_]) < 4 * error[class_]


def test_the_mean_over_draws_is_that_of_a_reference_with_negatives_of_its_own_for_each_anchor() -> None:
    sampled = slow.sampled_losses(case(), queries=400, negatives=6, rng=np.random.default_rng(0))
    mean, error = mean_and_error(case(), settings_of(32, 6, groups=4), draws=60)
    for class_ in (0, 1):
        theirs = np.array(sampled[class_])
        combined = math.hypot(error[class_], theirs.std(ddof=1) / math.sqrt(len(theirs)))
        assert abs(mean[class_] - theirs.mean()) < 4 * combined


@pytest.mark.parametrize("class_", [2, 3])
def test_a_class_without_hard_pixels_contributes_zero(class_: int) -> None:
    assert losses(case(), settings_of(8, 4))[class_].item() == 0.0


def test_a_class_without_a_prototype_contributes_zero() -> None:
    whole = case()
    without = whole._replace(prototypes={c: value for c, value in whole.prototypes.items() if c != 1})
    assert losses(without, settings_of(8, 4))[1].item() == 0.0


def only(of: slow.Case, label: int) -> slow.Case:
    return of._replace(label=np.full_like(of.label, label), hard=np.ones_like(of.hard))


@pytest.mark.parametrize("label", [255, 1], ids=["all ignored", "a single class"])
def test_where_nothing_can_be_told_apart_loss_and_gradient_are_zero(label: int) -> None:
    representations, labels, hard, prototypes = tensors(only(case(), label))
    pool = build_pool(labels, hard, K)
    loss = contrastive_loss(
        representations.requires_grad_(), pool, prototypes, pool.hard, settings_of(8, 4), torch.Generator()
    )
    (gradient,) = torch.autograd.grad(loss.sum(), representations)
    assert not loss.any()
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_before_any_prototype_exists_the_loss_is_zero() -> None:
    assert not losses(case()._replace(prototypes={}), settings_of(8, 4)).any()


def test_representations_of_zero_have_a_finite_gradient() -> None:
    _, label, hard, prototypes = tensors(case())
    zeros = torch.zeros(1, D, 3, 4, requires_grad=True)
    pool = build_pool(label, hard, K)
    loss = contrastive_loss(zeros, pool, prototypes, pool.hard, settings_of(8, 4), torch.Generator())
    (gradient,) = torch.autograd.grad(loss.sum(), zeros)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("numbers", [1, 3 * D * 4, 10**9], ids=["a group", "three groups", "all"])
def test_the_size_of_the_blocks_changes_neither_loss_nor_gradient(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss_and_gradient() -> tuple[Tensor, Tensor]:
        representations, label, hard, prototypes = tensors(case())
        pool, draws = build_pool(label, hard, K), torch.Generator().manual_seed(0)
        loss = contrastive_loss(
            representations.requires_grad_(), pool, prototypes, pool.hard, settings_of(16, 4, 2), draws
        )
        return loss, torch.autograd.grad(loss.sum(), representations)[0]

    loss, gradient = loss_and_gradient()
    monkeypatch.setattr(contrast, "_BLOCK_NUMBERS", numbers)
    other, other_gradient = loss_and_gradient()
    assert torch.allclose(loss, other, atol=1e-6)  # float32, matrix products of other shapes
    assert torch.allclose(gradient, other_gradient, atol=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 4), negatives=st.integers(1, 6))
def test_the_log_of_the_sum_and_its_gradient_are_those_of_the_formula(seed: int, groups: int, negatives: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    anchors = torch.randn(groups, 3, D, dtype=torch.float64, generator=draws).requires_grad_()
    pixels = 10 * torch.randn(7, D, dtype=torch.float64, generator=draws)
    at = torch.randint(7, (groups, negatives), generator=draws)
    weights = torch.randn(groups, 3, dtype=torch.float64, generator=draws)
    units = pixels / pixels.norm(dim=1, keepdim=True)
    expected = torch.stack([(anchors[b] @ units[at[b]].T).exp().sum(1).log() for b in range(groups)])
    log_sums = contrast._log_sum_exp(anchors, pixels, at)
    assert torch.allclose(log_sums, expected)
    (gradient,) = torch.autograd.grad((weights * log_sums).sum(), anchors)
    (expected_gradient,) = torch.autograd.grad((weights * expected).sum(), anchors)
    assert torch.allclose(gradient, expected_gradient)


def test_gradients_reach_hard_pixels_only_though_easy_ones_are_negatives() -> None:
    representations, label, hard, prototypes = tensors(case())
    pool = build_pool(label, hard, K)
    loss = contrastive_loss(
        representations.requires_grad_(), pool, prototypes, pool.hard, settings_of(64, 16), torch.Generator()
    )
    (gradient,) = torch.autograd.grad(loss.sum(), representations)
    reached = gradient.abs().sum(1) > 0
    assert torch.equal(reached, hard & (label != 255))


def test_no_gradient_reaches_a_prototype() -> None:
    representations, label, hard, prototypes = tensors(case())
    pool = build_pool(label, hard, K)
    asked = Prototypes(prototypes.values.requires_grad_(), prototypes.seen)
    loss = contrastive_loss(
        representations.requires_grad_(), pool, asked, pool.hard, settings_of(8, 4), torch.Generator()
    )
    assert torch.autograd.grad(loss.sum(), asked.values, allow_unused=True) == (None,)


def permuted(of: slow.Case, order: list[int]) -> slow.Case:
    """Class c becomes order[c]."""
    label = np.array([order[c] if c != 255 else 255 for c in of.label.flatten()]).reshape(of.label.shape)
    return of._replace(label=label, prototypes={order[c]: value for c, value in of.prototypes.items()})


@settings(max_examples=20)
@given(order=st.permutations(range(K)), seed=st.integers(0, 1000), negatives=st.integers(1, 9))
def test_permuting_the_classes_permutes_a_loss_that_leaves_nothing_to_chance(
    order: list[int], seed: int, negatives: int
) -> None:
    # Two classes of one direction each: whichever pixels are drawn, the loss is the same closed form.
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(2, D))
    label = np.array([0, 1, 1, 255]).reshape(1, 2, 2)
    representations = np.stack([3.0 * directions[0], directions[1], 0.5 * directions[1], directions[0]], axis=1)
    of = slow.Case(
        representations.reshape(1, D, 2, 2),
        label,
        np.ones((1, 2, 2), dtype=bool),
        {class_: rng.normal(size=D) for class_ in range(K)},
        TAU,
    )
    against = slow.cosine(directions[0], directions[1])
    result = losses(permuted(of, order), settings_of(4, negatives, groups=2))
    for class_ in range(K):
        expected = 0.0
        if class_ < 2:
            positive = slow.cosine(directions[class_], of.prototypes[class_])
            expected = math.log(1 + negatives * math.exp((against - positive) / TAU))
        # Cosines in float32, divided by tau: 1e-6 at most.
        assert math.isclose(result[order[class_]].item(), expected, rel_tol=1e-5, abs_tol=1e-5)


def test_permuting_the_classes_permutes_the_mean_loss() -> None:
    order = [2, 3, 1, 0]
    mean, error = mean_and_error(case(), settings_of(64, 4), draws=60)
    moved, moved_error = mean_and_error(permuted(case(), order), settings_of(64, 4), draws=60)
    for class_ in range(K):
        # Four standard errors; <= since classes that take no part are exactly zero.
        assert abs(mean[class_] - moved[order[class_]]) <= 4 * math.hypot(error[class_], moved_error[order[class_]])


def test_the_order_of_the_pixels_in_a_pool_is_by_class_hard_ones_first() -> None:
    label = torch.tensor([[[2, 0, 255, 2, 0, 2]]])
    hard = torch.tensor([[[False, True, True, True, False, True]]])
    pool = build_pool(label, hard, 3)
    assert pool.order.tolist() == [1, 4, 3, 5, 0, 2]
    assert (pool.offsets.tolist(), pool.counts.tolist(), pool.hard.tolist()) == ([0, 2, 2], [2, 0, 3], [1, 0, 2])


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), ignored=st.sampled_from([0.0, 0.5, 0.95]))
def test_anchors_are_hard_pixels_of_their_class_and_negatives_are_valid_pixels_of_others(
    seed: int, ignored: float
) -> None:
    # Told from the loss alone: every pixel's representation and prototype is its own axis, so the cosines are 0 or 1.
    draws = torch.Generator().manual_seed(seed)
    label = torch.randint(0, K, (1, 4, 4), generator=draws)
    label[torch.rand(label.shape, generator=draws) < ignored] = 255
    hard = torch.rand(label.shape, generator=draws) < 0.5
    axes = torch.eye(K + 1)  # the last axis is that of ignored pixels, and of easy ones as anchors
    representations = axes[torch.where(label == 255, K, label)].permute(0, 3, 1, 2)
    prototypes = Prototypes(axes[:K], torch.ones(K, dtype=torch.bool))
    pool = build_pool(label, hard, K)
    loss = contrastive_loss(representations, pool, prototypes, pool.hard, settings_of(8, 3), draws)
    told_apart = math.log(1 + 3 * math.exp(-1 / TAU))
    for class_ in range(K):
        active = bool((hard & (label == class_)).any()) and bool(((label != class_) & (label != 255)).any())
        assert math.isclose(loss[class_].item(), told_apart if active else 0.0, rel_tol=1e-5)


def test_a_rank_counts_by_its_share_of_the_hard_pixels_of_all() -> None:
    representations, label, hard, prototypes = tensors(case())
    pool = build_pool(label, hard, K)

    def loss(hard_counts: Tensor) -> Tensor:
        draws = torch.Generator().manual_seed(0)
        return contrastive_loss(representations, pool, prototypes, hard_counts, settings_of(16, 4), draws)

    # Two hard pixels of class 0 here and one elsewhere; two of class 1 here and two elsewhere.
    shares = torch.tensor([2 / 3, 1 / 2, 0.0, 0.0])
    assert torch.allclose(loss(pool.hard + torch.tensor([1, 2, 3, 0])), loss(pool.hard) * shares)


@pytest.mark.parametrize(("world_size", "expected"), [(1, 16), (2, 8), (3, 6), (16, 2), (64, 2)])
def test_ranks_share_the_anchors_evenly_rounded_up_to_whole_groups(world_size: int, expected: int) -> None:
    draws = draw_samples(K, settings_of(16, 4, 2), torch.Generator(), torch.device("cpu"), world_size)
    assert (draws.anchors.shape, draws.negatives.shape) == ((K, expected), (2, K, 2 * 4))


def test_samples_that_were_drawn_before_are_those_of_their_generator() -> None:
    representations, label, hard, prototypes = tensors(case())
    pool, config = build_pool(label, hard, K), settings_of(16, 4, 2)
    draws = draw_samples(K, config, torch.Generator().manual_seed(3), torch.device("cpu"), 2)
    here, before = (
        contrastive_loss(representations, pool, prototypes, pool.hard, config, given, 2)
        for given in (torch.Generator().manual_seed(3), draws)
    )
    assert torch.equal(here, before)
