"""The bootstrap over images: against the trainer's own scores, a slow reference, and simulated validation sets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.statistics import bootstrap
from harness.statistics.bootstrap import image_bootstrap
from trainers.errors import UsageError
from trainers.scores import iou_scores


def counts(*shape: int, most: int = 3) -> st.SearchStrategy:
    """Small counts, so that classes are often absent."""
    return arrays.arrays(np.int64, shape, elements=st.integers(0, most))


def miou(confusion: np.ndarray) -> float:
    return iou_scores(torch.from_numpy(confusion)).miou


def slowly(a: np.ndarray, b: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Differences of resamples [R], for a and b [S, N, K, K], from the images one by one."""
    images = a.shape[1]
    drawn = np.random.default_rng(seed).integers(0, images, (resamples, images))
    return np.array(
        [np.mean([miou(x[row].sum(0)) - miou(y[row].sum(0)) for x, y in zip(a, b, strict=True)]) for row in drawn]
    )


@given(counts(5, 4, 4), counts(5, 4, 4))
def test_the_difference_is_that_of_the_trainers_scores(a: np.ndarray, b: np.ndarray) -> None:
    found = image_bootstrap(a, b, resamples=2)
    assert found.difference == pytest.approx(miou(a.sum(0)) - miou(b.sum(0)), abs=1e-12)


@given(counts(2, 5, 3, 3, most=1), counts(2, 5, 3, 3, most=1))
@settings(max_examples=20)
def test_the_interval_is_that_of_resampled_images_with_classes_that_come_and_go(a: np.ndarray, b: np.ndarray) -> None:
    found, expected = image_bootstrap(a, b, resamples=50, seed=3), slowly(a, b, 50, 3)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])), abs=1e-12)
    assert found.std == pytest.approx(expected.std(ddof=1), abs=1e-12)


def test_without_any_pixel_the_score_is_0_and_not_nan() -> None:
    nothing = np.zeros((3, 2, 2), np.int64)
    assert image_bootstrap(nothing, nothing, resamples=5)[:4] == (0, 0, 0, 0)


def test_variants_and_seeds_share_their_images() -> None:
    # Images differ wildly, the variants not at all: paired resamples see no difference, unpaired ones would.
    a = np.random.default_rng(0).integers(0, 1000, (2, 20, 3, 3))
    assert image_bootstrap(a, a.copy(), resamples=100)[:4] == (0, 0, 0, 0)
    assert image_bootstrap(a, a[::-1], resamples=100)[1:4] == pytest.approx((0, 0, 0), abs=1e-12)


@given(counts(6, 3, 3), counts(6, 3, 3))
@settings(max_examples=20)
def test_sides_that_change_places_change_the_sign(a: np.ndarray, b: np.ndarray) -> None:
    there, back = (image_bootstrap(x, y, resamples=40) for x, y in ((a, b), (b, a)))
    assert (there.difference, there.low, there.high) == pytest.approx(
        (-back.difference, -back.high, -back.low), abs=1e-12
    )


@given(counts(6, 4, 4), counts(6, 4, 4), st.permutations(range(4)))
@settings(max_examples=20)
def test_classes_have_no_order(a: np.ndarray, b: np.ndarray, order: list[int]) -> None:
    mixed = [side[:, order][:, :, order] for side in (a, b)]
    assert image_bootstrap(*mixed, resamples=40) == pytest.approx(image_bootstrap(a, b, resamples=40), abs=1e-12)


def test_one_pair_is_one_seed() -> None:
    a, b = np.random.default_rng(0).integers(0, 9, (2, 10, 3, 3))
    assert image_bootstrap(a, b, resamples=50) == image_bootstrap(a[None], b[None], resamples=50)


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(0).integers(0, 9, (2, 10, 3, 3))
    whole = image_bootstrap(a, b, resamples=70)
    monkeypatch.setattr(bootstrap, "CHUNK", 16)
    assert image_bootstrap(a, b, resamples=70) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((4, 3, 3), (5, 3, 3), "of the same images and seeds"),
        ((4, 3, 2), (4, 3, 2), "must be .N, K, K. or"),
        ((3, 3), (3, 3), r"got \[3, 3\]"),
        ((1, 3, 3), (1, 3, 3), "at least 2 images, got 1"),
        ((0, 4, 3, 3), (0, 4, 3, 3), r"got \[0, 4, 3, 3\]"),
    ],
)
def test_what_are_no_pairs_of_images_is_refused(a: tuple[int, ...], b: tuple[int, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        image_bootstrap(np.zeros(a, np.int64), np.zeros(b, np.int64))


def test_negative_counts_are_refused() -> None:
    with pytest.raises(UsageError, match="counts of pixels"):
        image_bootstrap(np.full((3, 2, 2), -1), np.full((3, 2, 2), 1))


CLASSES, POPULATION = 6, 5000


def population(gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrices [M, K, K] of two variants over all images that there are.

    An image shows few of the classes, of which some are rarer than others; how hard it is holds for both variants.
    """
    draw = np.random.default_rng(0)
    share = 1 / np.arange(1, CLASSES + 1) ** 0.7
    pixels = (draw.dirichlet(3 * share / share.sum(), POPULATION) * 4096).astype(np.int64)
    hard = draw.normal(0, 0.8, (POPULATION, 1))
    image, of = np.arange(POPULATION)[:, None], np.arange(CLASSES)
    sides = []
    for shift in (gap, 0.0):
        right = draw.binomial(pixels, 1 / (1 + np.exp(-1 - shift - hard - draw.normal(0, 0.7, pixels.shape))))
        confusion = np.zeros((POPULATION, CLASSES, CLASSES), np.int64)
        confusion[image, of, (of + draw.integers(1, CLASSES, pixels.shape)) % CLASSES] = pixels - right
        confusion[:, of, of] = right
        sides.append(confusion)
    return sides[0], sides[1]


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_intervals_hold_the_difference_on_all_images_in_95_of_100_validation_sets(gap: float) -> None:
    a, b = population(gap)
    truth = miou(a.sum(0)) - miou(b.sum(0))
    draw = np.random.default_rng(1)
    sets, images = 500, 100
    covered = 0
    for number in range(sets):
        chosen = draw.integers(0, POPULATION, images)
        found = image_bootstrap(a[chosen], b[chosen], resamples=500, seed=number)
        covered += found.low <= truth <= found.high
    print(f"coverage, gap {gap}: {covered / sets:.3f}")
    assert covered / sets == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / sets) ** 0.5)
