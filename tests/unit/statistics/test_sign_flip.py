"""The sign-flip test: against scipy's exact permutation test, all signs one by one, and its laws."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import compare
from harness.statistics.compare import sign_flip

DIFFERENCES = st.lists(st.floats(-1, 1), min_size=6, max_size=9)


def one_by_one(differences: list[float]) -> float:
    """The definition, with sums that are exact: differences are given in thousandths."""
    units = [round(1000 * difference) for difference in differences]
    sums = [
        abs(sum(sign * unit for sign, unit in zip(signs, units, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(units))
    ]
    return sum(one >= abs(sum(units)) for one in sums) / len(sums)


@pytest.mark.parametrize("seed", range(5))
def test_p_is_scipys(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.02, 0.03, 6 + seed)
    theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=2**12)
    assert sign_flip(differences.tolist()).p == pytest.approx(theirs.pvalue, abs=1e-12)


@given(st.lists(st.integers(-30, 30), min_size=6, max_size=8))
def test_ties_count_whatever_rounding_makes_of_them(thousandths: list[int]) -> None:
    # 0.61 - 0.6 is not 0.01; with scores of three digits, many sums are equal and few of them to the last bit.
    differences = [(600 + unit) / 1000 - 0.6 for unit in thousandths]
    assert sign_flip(differences).p == pytest.approx(one_by_one([unit / 1000 for unit in thousandths]), abs=1e-12)


@given(DIFFERENCES, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(differences: list[float], draw: random.Random) -> None:
    assert sign_flip(draw.sample(differences, len(differences))).p == sign_flip(differences).p


@given(DIFFERENCES)
def test_neither_side_is_preferred(differences: list[float]) -> None:
    assert sign_flip([-difference for difference in differences]) == sign_flip(differences)


@given(DIFFERENCES)
def test_p_is_never_below_the_smallest(differences: list[float]) -> None:
    found = sign_flip(differences)
    assert found.p is not None
    assert found.smallest <= found.p <= 1


@pytest.mark.parametrize(("n", "smallest"), [(0, 1), (1, 1), (2, 0.5), (3, 0.25), (4, 0.125), (5, 0.0625)])
def test_too_few_seeds_have_no_p_but_say_what_they_could_attain(n: int, smallest: float) -> None:
    assert sign_flip([0.1 * place + 0.1 for place in range(n)]) == (n, None, smallest, "exact")


@pytest.mark.parametrize("n", [6, 7, 10, 18])
def test_differences_of_one_sign_attain_the_smallest_p(n: int) -> None:
    found = sign_flip([0.01 * place + 0.01 for place in range(n)])
    assert found.p == found.smallest == 2 / 2**n


def test_equal_scores_have_p_1() -> None:
    assert sign_flip([0.0] * 6).p == 1


def test_many_seeds_are_drawn_and_come_near_the_exact_p(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(3).normal(0.01, 0.03, 14).tolist()
    exact = sign_flip(differences)
    monkeypatch.setattr(compare, "MOST_EXACT", 10)
    drawn = sign_flip(differences)
    assert (exact.method, drawn.method) == ("exact", "monte carlo")
    assert exact.p is not None
    assert drawn.p == pytest.approx(exact.p, abs=4 * (exact.p * (1 - exact.p) / compare.DRAWS) ** 0.5)


def test_an_estimate_claims_no_more_than_its_draws_can_show() -> None:
    found = sign_flip([0.1 + 0.001 * place for place in range(40)])
    assert found.p == found.smallest == 1 / (compare.DRAWS + 1)


def test_draws_repeat_with_their_seed() -> None:
    differences = np.random.default_rng(0).normal(0.01, 0.03, 20).tolist()
    assert sign_flip(differences, seed=1) == sign_flip(differences, seed=1)
    assert sign_flip(differences, seed=1).p != sign_flip(differences, seed=2).p
