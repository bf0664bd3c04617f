"""Pseudo-labels of both spaces (Eq. 1, 4, 5) and their collaboration (section 3.3)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pseudo_labels as slow
from reference.golden import golden
from reference.tiny import tiny_config

from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import (
    PseudoLabels,
    Targets,
    collaborate,
    downsample_labels,
    logit_targets,
    pseudo_labels,
)
from trainers.models.heads import Dense

K, D = 11, 6


def published(temperature: str) -> tuple[PseudoLabels, dict[str, torch.Tensor]]:
    """Ours and theirs on the same input; every class is marked as seen, as their zero rows take part there."""
    data = golden()
    prototypes = Prototypes(data["pseudo_prototypes"], torch.ones(21, dtype=torch.bool))
    ours = pseudo_labels(Dense(data["pseudo_logits"], data["pseudo_rep"]), prototypes, float(temperature), (45, 45))
    prefix = f"pseudo_t{temperature}_"
    return ours, {name.removeprefix(prefix): value for name, value in data.items() if name.startswith(prefix)}


@pytest.mark.parametrize("temperature", ["0.5", "0.1"])
def test_logit_labels_are_the_published_ones(temperature: str) -> None:
    ours, theirs = published(temperature)
    assert torch.equal(ours.logit_label, theirs["label_cls"])


@pytest.mark.parametrize("temperature", ["0.5", "0.1"])
def test_confidences_are_the_published_ones(temperature: str) -> None:
    ours, theirs = published(temperature)
    assert torch.allclose(ours.confidence, theirs["conf_cls"], atol=1e-6)  # float32


@pytest.mark.parametrize("temperature", ["0.5", "0.1"])
def test_representation_labels_are_the_published_ones(temperature: str) -> None:
    ours, theirs = published(temperature)
    assert torch.equal(ours.representation_label, theirs["label_rep"])


@pytest.mark.parametrize("temperature", ["0.5", "0.1"])
def test_indicators_are_the_published_ones(temperature: str) -> None:
    ours, theirs = published(temperature)
    # float32, and a softmax of cosines / 0.1 magnifies their rounding tenfold.
    assert torch.allclose(ours.similarity.amax(1), theirs["indicator"], atol=2e-6)


@pytest.mark.parametrize("temperature", ["0.5", "0.1"])
def test_mixed_labels_are_the_published_ones(temperature: str) -> None:
    ours, theirs = published(temperature)
    config = tiny_config({"css.label_strategy": "mix", "css.indicator": "confidence"})
    assert torch.equal(collaborate(ours, config, warming_up=False).logit_target, theirs["label_mix"])


def test_published_prototypes_that_were_never_seen_win_no_pixel_here() -> None:
    data = golden()
    prototypes = Prototypes(data["pseudo_prototypes"], data["pseudo_prototypes"].abs().sum(1) > 0)
    ours = pseudo_labels(Dense(data["pseudo_logits"], data["pseudo_rep"]), prototypes, 0.5, (45, 45))
    assert not torch.isin(ours.representation_label, (~prototypes.seen).nonzero().flatten()).any()


def draw(seed: int) -> tuple[Dense, Prototypes]:
    draws = torch.Generator().manual_seed(seed)
    seen = torch.rand(K, generator=draws) < 0.7
    seen[0] = True
    values = torch.where(seen.unsqueeze(1), torch.randn(K, D, generator=draws), torch.zeros(K, D))
    teacher = Dense(3 * torch.randn(2, K, 3, 4, generator=draws), torch.randn(2, D, 3, 4, generator=draws))
    return teacher, Prototypes(values, seen)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_logit_labels_have_the_largest_probability_and_confidences_are_it(seed: int) -> None:
    teacher, prototypes = draw(seed)
    ours = pseudo_labels(teacher, prototypes, 0.3, (8, 9))
    probs = np.stack([slow.logit_probs(image.double().numpy(), (8, 9)) for image in teacher.logits])
    # float32 carries logits of order ten to 1e-6. Where two classes are closer than that, either may win.
    assert np.allclose(ours.confidence.numpy(), probs.max(axis=1), atol=1e-5)
    assert np.allclose(taken(probs, ours.logit_label), probs.max(axis=1), atol=1e-5)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_representation_labels_are_the_nearest_prototypes_and_indicators_their_softmax(seed: int) -> None:
    teacher, prototypes = draw(seed)
    ours = pseudo_labels(teacher, prototypes, 0.3, (8, 9))
    known = {int(c): prototypes.values[c].double().numpy() for c in prototypes.seen.nonzero().flatten()}
    probs = np.zeros(ours.similarity.shape)
    for image, maps in enumerate(teacher.representations):
        probs[image, sorted(known)] = slow.representation_probs(maps.double().numpy(), known, 0.3, (8, 9))
    assert np.allclose(ours.similarity.numpy(), probs, atol=1e-5)  # as above
    assert np.allclose(taken(probs, ours.representation_label), probs.max(axis=1), atol=1e-5)


def taken(probs: np.ndarray, label: torch.Tensor) -> np.ndarray:
    """The probability of each pixel's label."""
    return np.take_along_axis(probs, label.numpy()[:, None], axis=1)[:, 0]


@pytest.mark.parametrize("seed", range(5))
def test_permuting_the_classes_permutes_the_labels(seed: int) -> None:
    teacher, prototypes = draw(seed)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(seed))
    moved = Prototypes(prototypes.values[order], prototypes.seen[order])
    ours = pseudo_labels(teacher, prototypes, 0.3, (8, 9))
    other = pseudo_labels(Dense(teacher.logits[:, order], teacher.representations), moved, 0.3, (8, 9))
    assert torch.equal(order[other.logit_label], ours.logit_label)
    assert torch.equal(order[other.representation_label], ours.representation_label)


LABELS = PseudoLabels(
    logit_label=torch.tensor([[[0, 1, 2]]]),
    confidence=torch.tensor([[[0.9, 0.8, 0.7]]]),
    representation_label=torch.tensor([[[0, 2, 1]]]),
    similarity=torch.tensor([[[0.6, 0.1, 0.1], [0.3, 0.2, 0.5], [0.1, 0.7, 0.4]] + 8 * [[0.0] * 3]]).unsqueeze(2),
)
"""Three pixels: the spaces agree on the first and exchange the other two."""


def targets(overrides: Mapping[str, Any], warming_up: bool = False) -> Targets:
    return collaborate(LABELS, tiny_config(overrides), warming_up)


@pytest.mark.parametrize(
    ("strategy", "for_logits", "for_representations"),
    [
        ("logit", [0, 1, 2], [0, 1, 2]),
        ("representation", [0, 2, 1], [0, 2, 1]),
        ("mix", [0, 255, 255], [0, 255, 255]),
        ("cross", [0, 2, 1], [0, 1, 2]),
    ],
)
def test_each_strategy_says_which_space_labels_which(
    strategy: str, for_logits: list[int], for_representations: list[int]
) -> None:
    chosen = targets({"css.label_strategy": strategy})
    assert chosen.logit_target.flatten().tolist() == for_logits
    assert chosen.representation_target.flatten().tolist() == for_representations


def test_cross_takes_all_labels_from_the_logits_while_it_warms_up() -> None:
    chosen = targets({"css.label_strategy": "cross"}, warming_up=True)
    assert chosen.logit_target.flatten().tolist() == [0, 1, 2]
    assert chosen.representation_target.flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("strategy", ["logit", "representation", "mix"])
def test_only_cross_warms_up(strategy: str) -> None:
    overrides = {"css.label_strategy": strategy}
    assert all(map(torch.equal, targets(overrides, warming_up=True), targets(overrides)))


def test_without_prototypes_the_logits_label_everything() -> None:
    teacher = Dense(torch.randn(2, 11, 4, 4), torch.randn(2, 16, 4, 4))
    alone = logit_targets(teacher, (16, 16))
    both = pseudo_labels(teacher, Prototypes(torch.randn(11, 16), torch.ones(11, dtype=torch.bool)), 0.5, (16, 16))
    assert torch.equal(alone.logit_target, both.logit_label)
    assert torch.equal(alone.representation_target, both.logit_label)
    assert torch.equal(alone.confidence, both.confidence)


@pytest.mark.parametrize(
    ("strategy", "indicator"),
    [
        ("logit", [0.6, 0.2, 0.4]),
        ("representation", [0.6, 0.7, 0.5]),
        ("mix", [0.6, 0.0, 0.0]),
        ("cross", [0.6, 0.2, 0.4]),
    ],
)
def test_the_similarity_indicator_is_that_of_the_class_which_supervises_the_representation(
    strategy: str, indicator: list[float]
) -> None:
    chosen = targets({"css.label_strategy": strategy})
    assert torch.equal(chosen.indicator.flatten(), torch.tensor(indicator))


def test_the_confidence_indicator_is_the_confidence() -> None:
    chosen = targets({"css.indicator": "confidence", "css.label_strategy": "representation"})
    assert torch.equal(chosen.indicator, LABELS.confidence)


def test_valid_pixels_may_have_an_indicator_of_their_own() -> None:
    chosen = targets({"css.valid_indicator": "confidence", "css.label_strategy": "cross"})
    assert torch.equal(chosen.indicator, LABELS.confidence)
    chosen = targets(
        {"css.indicator": "confidence", "css.valid_indicator": "similarity", "css.label_strategy": "cross"}
    )
    assert torch.equal(chosen.indicator.flatten(), torch.tensor([0.6, 0.2, 0.4]))


@pytest.mark.parametrize(
    ("gate", "strategy", "confidence"),
    [
        ("logit", "cross", [0.9, 0.8, 0.7]),
        ("own", "cross", [0.6, 0.7, 0.5]),
        ("own", "mix", [0.9, 0.8, 0.7]),
        ("representation", "mix", [0.6, 0.0, 0.0]),
        ("representation", "logit", [0.6, 0.2, 0.4]),
    ],
)
def test_the_gate_says_what_is_compared_with_delta_u(gate: str, strategy: str, confidence: list[float]) -> None:
    chosen = targets({"css.unsupervised_gate": gate, "css.label_strategy": strategy, "thresholds.delta_u": 0.5})
    assert torch.equal(chosen.confidence.flatten(), torch.tensor(confidence))


def test_a_gate_of_its_own_is_the_logits_while_cross_warms_up() -> None:
    overrides = {"css.unsupervised_gate": "own", "css.label_strategy": "cross", "thresholds.delta_u": 0.5}
    assert torch.equal(targets(overrides, warming_up=True).confidence, LABELS.confidence)


def test_labels_are_made_smaller_without_new_values() -> None:
    label = torch.tensor([0, 254, 255, 7]).repeat(1, 8, 2)
    small = downsample_labels(label, (2, 4))
    assert (small.dtype, small.shape) == (torch.int64, (1, 2, 4))
    assert torch.equal(small, label[:, ::4, ::2])
