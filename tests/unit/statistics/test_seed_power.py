"""How many seeds are needed: against published tables, simulated t-tests and the definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics.power import (
    MOST_SEEDS,
    POWER,
    Spread,
    power,
    seeds_needed,
    seeds_table,
    spread,
    spread_of_differences,
)
from trainers.errors import UsageError


def rejected(delta: float, std: float, n: int) -> float:
    """Share of simulated paired t-tests with p < 0.05."""
    drawn = np.random.default_rng(n).normal(delta, std, (40_000, n))
    return float(np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05))


@pytest.mark.parametrize(("delta", "n"), [(0.0, 3), (1.0, 2), (1.0, 3), (1.5, 5), (0.5, 20), (4.0, 3)])
def test_power_is_the_share_of_simulated_tests_that_find_it(delta: float, n: int) -> None:
    expected = power(delta, 1.0, n)
    assert rejected(delta, 1.0, n) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 40_000))


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_small_medium_and_large_effects_need_the_known_numbers_of_pairs(effect: float, pairs: int) -> None:
    assert seeds_needed(effect, 1.0) == pairs


@given(st.floats(0.05, 20), st.sampled_from([1, -1]))
def test_the_number_is_the_smallest_with_the_power(effect: float, sign: int) -> None:
    seeds = seeds_needed(sign * effect, 1.0)
    assert seeds is not None
    assert power(effect, 1.0, seeds) >= POWER
    assert seeds == 2 or power(effect, 1.0, seeds - 1) < POWER


@given(st.floats(0.05, 3), st.floats(0.01, 100))
def test_only_the_ratio_to_the_spread_counts(effect: float, std: float) -> None:
    assert seeds_needed(effect * std, std) == pytest.approx(seeds_needed(effect, 1.0), abs=1)


@pytest.mark.parametrize("n", [2, 3, 5, 30, 1000, 10_000])
def test_power_rises_with_the_difference_to_1_and_is_always_a_number(n: int) -> None:
    deltas = np.concatenate([np.linspace(0, 12, 60), [20, 37, 40, 100, 1e5]]) / math.sqrt(n)
    found = [power(delta, 1.0, n) for delta in deltas]
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(0.05)
    assert np.diff(found).min() >= -1e-8
    assert found[-1] == pytest.approx(1)


def test_what_ten_thousand_seeds_do_not_show_has_no_number() -> None:
    edge = next(effect for effect in np.linspace(0.0275, 0.0285, 100) if power(effect, 1.0, MOST_SEEDS) >= POWER)
    assert seeds_needed(float(edge), 1.0) == pytest.approx(MOST_SEEDS, rel=0.001)
    assert seeds_needed(0.9 * float(edge), 1.0) is None


def test_without_scatter_two_seeds_show_anything() -> None:
    assert seeds_needed(1e-6, 0.0) == 2


@pytest.mark.parametrize("delta", [0.0, math.nan, math.inf])
def test_a_difference_that_cannot_be_found_is_refused(delta: float) -> None:
    with pytest.raises(UsageError, match="must be finite and not 0"):
        seeds_needed(delta, 1.0)


def test_the_spread_is_the_standard_deviation_with_its_chi_square_interval() -> None:
    values = [0.61, 0.55, 0.7, 0.64, 0.6]
    found = spread(values)
    assert found.std == pytest.approx(float(np.std(values, ddof=1)))
    # (n - 1) s^2 / sigma^2 is distributed as chi-square with n - 1 degrees of freedom.
    shares = [float(stats.chi2.cdf(4 * (found.std / bound) ** 2, 4)) for bound in found[2:]]
    assert shares == pytest.approx([0.975, 0.025, 0.2])


def test_the_true_spread_lies_where_it_is_said_to_lie() -> None:
    draw, repeats = np.random.default_rng(0), 2000
    found = [spread(draw.normal(0.6, 0.02, 4).tolist()) for _ in range(repeats)]
    inside = np.mean([one.low <= 0.02 <= one.high for one in found])
    below = np.mean([one.upper >= 0.02 for one in found])
    assert inside == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / repeats))
    assert below == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / repeats))


def test_equal_scores_have_no_spread() -> None:
    assert spread([0.1] * 3) == Spread(3, 0, 0, 0, 0)


def test_a_spread_of_one_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 2 seeds, got 1"):
        spread([0.5])


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_the_spread_of_differences_is_that_of_scores_with_this_correlation(rho: float) -> None:
    covariance = 0.03**2 * np.array([[1, rho], [rho, 1]])
    a, b = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 200_000).T
    found = spread_of_differences(Spread(5, 0.03, 0.02, 0.08, 0.04), rho)
    assert found.std == pytest.approx(float(np.std(a - b)), rel=0.01)
    assert found.upper / found.std == pytest.approx(0.04 / 0.03)


def test_unknown_pairing_is_taken_for_none() -> None:
    assert spread_of_differences(Spread(5, 1, 1, 1, 1)).std == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("rho", [1.0, -1.1])
def test_what_is_no_correlation_is_refused(rho: float) -> None:
    with pytest.raises(UsageError, match="0 is the cautious choice"):
        spread_of_differences(Spread(5, 1, 1, 1, 1), rho)


def test_the_table_has_a_line_a_difference_and_plans_for_a_spread_that_was_underestimated() -> None:
    between = spread_of_differences(spread([0.61, 0.55, 0.7, 0.64, 0.6]))
    table = seeds_table(between, [0.02, 0.05, 0.1])
    assert [line.delta for line in table] == [0.02, 0.05, 0.1]
    assert [line.seeds for line in table] == [seeds_needed(delta, between.std) for delta in (0.02, 0.05, 0.1)]
    assert [line.seeds_upper for line in table] == [seeds_needed(delta, between.upper) for delta in (0.02, 0.05, 0.1)]
    assert all(line.seeds < line.seeds_upper for line in table)  # type: ignore[operator]
