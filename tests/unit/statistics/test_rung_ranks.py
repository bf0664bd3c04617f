"""Rank correlation between rungs and final values: against scipy, worked examples and laws."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics.ranks import Course, RungOrder, rank_correlation, rung_orders

VALUE = st.integers(0, 20).map(lambda value: value / 20)
PAIRS = st.lists(st.tuples(VALUE, VALUE), min_size=3, max_size=12)


def order(pairs: list[tuple[float, float]], eta: int = 3, maximise: bool = True) -> RungOrder:
    return rung_orders([Course({10: early}, late) for early, late in pairs], [10], eta, maximise)[0]


def test_correlations_are_scipys() -> None:
    draw = random.Random(0)
    pairs = [(draw.random(), draw.random()) for _ in range(20)]
    found, (early, late) = order(pairs), zip(*pairs, strict=True)
    assert (found.kendall, found.spearman) == pytest.approx(
        (stats.kendalltau(early, late).statistic, stats.spearmanr(early, late).statistic)
    )


def test_with_ties_kendalls_tau_is_tau_b() -> None:
    # 4 pairs agree and 1 disagrees; of the 6, one is tied at the rung: tau-b = 3 / sqrt(5 * 6).
    found = rank_correlation([1, 1, 2, 3], [1, 2, 4, 3])
    assert found is not None
    assert found[0] == pytest.approx(3 / 30**0.5)


def test_an_order_that_stays_is_safe_and_one_that_turns_is_not() -> None:
    rising = [(place / 10, place / 5) for place in range(9)]
    turned = [(-early, late) for early, late in rising]
    assert order(rising) == (10, 9, 1, 1, 3, 3)
    assert order(turned) == (10, 9, -1, -1, 3, 0)
    safe = [found.kept == found.top for found in (order(rising), order(turned))]
    assert safe == [True, False]


def test_the_best_are_counted_that_the_rung_would_have_let_pass() -> None:
    # At the end the best third are the last three of nine; at the rung one of them is fourth.
    early = [0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.6, 0.7, 0.8]
    found = order([(value, place / 10) for place, value in enumerate(early)])
    assert (found.top, found.kept) == (3, 2)


def test_of_fewer_trials_than_eta_the_best_one_counts() -> None:
    found = order([(0.1, 0.1), (0.3, 0.2), (0.2, 0.3)], eta=4)
    assert (found.top, found.kept) == (1, 0)


def test_those_that_equal_the_last_one_let_in_are_let_in() -> None:
    found = order([(0.5, 0.1), (0.5, 0.2), (0.5, 0.9), (0.1, 0.3)], eta=4)
    assert (found.top, found.kept) == (1, 1)


def test_trials_without_both_values_do_not_count() -> None:
    whole = [Course({10: value}, value) for value in (0.1, 0.2, 0.3)]
    partly = [Course({10: 0.9}, None), Course({20: 0.9}, 0.0), Course({}, None)]
    assert rung_orders(whole + partly, [10], 3) == rung_orders(whole, [10], 3)


def test_each_step_has_its_line_in_the_order_given() -> None:
    courses = [Course({10: -value, 20: value}, value) for value in (0.1, 0.2, 0.3)]
    assert [(line.step, line.kendall) for line in rung_orders(courses, [20, 10, 30], 3)] == [
        (20, 1),
        (10, -1),
        (30, None),
    ]


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(0.1, 0.2), (0.2, 0.3)],
        [(0.5, 0.1), (0.5, 0.2), (0.5, 0.3)],
        [(0.1, 0.5), (0.2, 0.5), (0.3, 0.5)],
    ],
)
def test_too_few_or_constant_values_have_no_order(pairs: list[tuple[float, float]]) -> None:
    found = order(pairs)
    assert found == (10, len(pairs), None, None, None, None)
    assert found.kept is None


@given(PAIRS, st.integers(2, 4))
def test_where_less_is_better_signs_turn_and_nothing_else(pairs: list[tuple[float, float]], eta: int) -> None:
    negated = [(-early, -late) for early, late in pairs]
    assert order(pairs, eta) == pytest.approx(order(negated, eta, maximise=False))


@given(PAIRS, st.integers(2, 4), st.randoms(use_true_random=False))
def test_trials_have_no_order(pairs: list[tuple[float, float]], eta: int, draw: random.Random) -> None:
    assert order(draw.sample(pairs, len(pairs)), eta) == pytest.approx(order(pairs, eta))


@given(PAIRS, st.integers(2, 4))
def test_only_ranks_count(pairs: list[tuple[float, float]], eta: int) -> None:
    bent = [(early**3, 2 + late / 7) for early, late in pairs]
    assert order(bent, eta) == pytest.approx(order(pairs, eta))
