"""Prototypes (Eq. 2, 3) against a slow reference and published values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import prototypes as slow
from reference.golden import golden

from trainers.config import similarity_bound
from trainers.css.prototypes import (
    Prototypes,
    best_class,
    class_sums,
    cosine_similarity,
    own_class,
    similarity_probs,
    update_prototypes,
)

K, D = 5, 3


def draw(seed: int, ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Representations [2, D, 3, 4] and labels of classes 0 to K - 2, some ignored."""
    draws = torch.Generator().manual_seed(seed)
    label = torch.randint(0, K - 1, (2, 3, 4), generator=draws)
    label[torch.rand(label.shape, generator=draws) < ignored] = 255
    return torch.randn(2, D, 3, 4, generator=draws), label


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), ignored=st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_two_updates_are_the_means_and_their_moving_average(seed: int, ignored: float) -> None:
    prototypes, expected = Prototypes.empty(K, D), {}
    for update in range(2):
        representations, label = draw(2 * seed + update, ignored)
        prototypes = update_prototypes(prototypes, class_sums(representations, label, K), momentum=0.7)
        means = slow.class_means(representations.double().numpy(), label.numpy(), K)
        expected = slow.moved(expected, means, momentum=0.7)
    assert prototypes.seen.nonzero().flatten().tolist() == sorted(expected)
    for class_, value in expected.items():
        # Sums of at most 24 numbers of order one in float32: their rounding stays far below 1e-5.
        assert np.allclose(prototypes.values[class_].numpy(), value, atol=1e-5)


def test_an_update_gives_the_published_prototypes() -> None:
    data = golden()
    before = Prototypes(data["contrast_prototypes_before"], data["contrast_prototypes_before"].abs().sum(1) > 0)
    valid = torch.where(data["contrast_valid_mask"] > 0, data["contrast_label"], 255)
    after = update_prototypes(before, class_sums(data["contrast_rep"], valid, 21), data["contrast_momentum"].item())
    # Both in float32, the sums in another order: up to 630 pixels of order one.
    assert (after.values - data["contrast_prototypes_after"]).abs().max() < 1e-5


def test_a_class_whose_mean_is_zero_was_seen_all_the_same_and_moves_on_from_there() -> None:
    opposite = torch.tensor([1.0, -1.0]).view(1, 1, 1, 2).expand(1, D, 1, 2)
    label = torch.tensor([[[1, 1]]])
    zero = update_prototypes(Prototypes.empty(K, D), class_sums(opposite, label, K), 0.75)
    assert zero.seen.tolist() == [False, True, False, False, False]
    after = update_prototypes(zero, class_sums(torch.ones(1, D, 1, 2), label, K), 0.75)
    assert after.values[1].tolist() == [0.25] * D


def test_classes_without_pixels_keep_their_prototype_bit_for_bit() -> None:
    before = Prototypes(torch.randn(K, D), torch.tensor([True, True, False, True, False]))
    after = update_prototypes(before, class_sums(torch.randn(1, D, 2, 2), torch.ones(1, 2, 2).long(), K), 0.9)
    kept = torch.tensor([0, 2, 3, 4])
    assert torch.equal(after.values[kept], before.values[kept])
    assert torch.equal(after.seen[kept], before.seen[kept])


def test_no_gradient_reaches_a_prototype() -> None:
    representations, label = draw(0)
    sums = class_sums(representations.requires_grad_(), label, K)
    assert not update_prototypes(Prototypes.empty(K, D), sums, 0.9).values.requires_grad


def test_sums_of_the_halves_of_a_batch_add_up_to_those_of_the_whole() -> None:
    representations, label = draw(1)
    whole = class_sums(representations, label, K)
    halves = [class_sums(representations[i : i + 1], label[i : i + 1], K) for i in range(2)]
    assert torch.allclose(whole.sums, halves[0].sums + halves[1].sums, atol=1e-5)  # the order of 24 float32 terms
    assert torch.equal(whole.counts, halves[0].counts + halves[1].counts)


def test_the_value_of_a_pixels_own_class_is_taken_and_zero_where_it_has_none() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).view(1, 2, 1, 3)
    assert own_class(values, torch.tensor([[[1, 0, 255]]])).tolist() == [[[4.0, 2.0, 0.0]]]


@pytest.mark.parametrize("temperature", [0.1, 0.25, 0.5])
def test_classes_never_seen_cannot_win_even_where_all_others_point_away(temperature: float) -> None:
    prototypes = Prototypes(torch.eye(K)[:, :D].contiguous(), torch.tensor([True, True, False, False, False]))
    away = -torch.ones(1, D, 2, 2)
    probs = similarity_probs(cosine_similarity(away, prototypes), prototypes.seen, temperature)
    label, value = best_class(probs)
    assert torch.isin(label, torch.tensor([0, 1])).all()
    assert torch.allclose(value, torch.tensor(0.5))


def test_before_any_class_was_seen_pixels_are_ignored_with_indicator_zero() -> None:
    prototypes = Prototypes.empty(K, D)
    probs = similarity_probs(cosine_similarity(torch.randn(1, D, 2, 2), prototypes), prototypes.seen, 0.5)
    label, value = best_class(probs)
    assert label.unique().tolist() == [255]
    assert value.unique().tolist() == [0.0]


@given(classes=st.integers(2, 30), temperature=st.floats(0.05, 2.0))
def test_the_bound_of_the_indicator_is_reached_by_a_pixel_on_one_prototype_and_opposite_to_all_others(
    classes: int, temperature: float
) -> None:
    similarity = torch.full((1, classes, 1, 1), -1.0, dtype=torch.float64)
    similarity[0, 0] = 1.0
    reached = similarity_probs(similarity, torch.ones(classes, dtype=torch.bool), temperature).max().item()
    assert math.isclose(reached, similarity_bound(classes, temperature), rel_tol=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), temperature=st.floats(0.1, 1.0))
def test_no_indicator_exceeds_its_bound(seed: int, temperature: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    prototypes = Prototypes(torch.randn(K, D, generator=draws), torch.ones(K, dtype=torch.bool))
    probs = similarity_probs(
        cosine_similarity(torch.randn(4, D, 4, 4, generator=draws), prototypes), prototypes.seen, temperature
    )
    assert probs.max().item() <= similarity_bound(K, temperature) + 1e-6  # float32
