"""Variants against a base: against scipy, with missing seeds, without scatter, and in words."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics.compare import Comparison, Verdict, compare, in_words
from trainers.errors import UsageError

BASE = {0: 0.60, 1: 0.64, 2: 0.61, 3: 0.63}
UP = {0: 0.70, 1: 0.745, 2: 0.71, 3: 0.728}
NOISY = {0: 0.66, 1: 0.62, 2: 0.65, 3: 0.61}
TABLE = st.dictionaries(
    st.sampled_from("abcd"), st.dictionaries(st.integers(0, 7), st.floats(0, 1), max_size=8), min_size=1
)
ONE_BASE = st.dictionaries(st.integers(0, 7), st.floats(0, 1), max_size=8)


def against(base: dict[int, float], *others: dict[int, float], maximise: bool = True) -> list[Comparison]:
    return [*compare(base, {str(place): other for place, other in enumerate(others)}, maximise).values()]


def shifted(scores: dict[int, float], *by: float) -> dict[int, float]:
    return {seed: score + difference for (seed, score), difference in zip(scores.items(), by, strict=True)}


def test_of_one_variant_all_is_scipys_paired_t_test() -> None:
    (found,) = against(BASE, NOISY)
    theirs = stats.ttest_rel([*NOISY.values()], [*BASE.values()])
    interval = theirs.confidence_interval(0.95)
    assert (found.p_t, found.ci_low, found.ci_high) == pytest.approx((theirs.pvalue, interval.low, interval.high))


def test_ps_are_adjusted_for_all_variants() -> None:
    up, noisy = against(BASE, UP, NOISY)
    raw = [stats.ttest_rel([*other.values()], [*BASE.values()]).pvalue for other in (UP, NOISY)]
    assert raw[0] < raw[1]
    assert (up.p_t, noisy.p_t) == pytest.approx((2 * raw[0], raw[1]))


def test_the_row_adds_up() -> None:
    up = against(BASE, UP)[0]
    assert up.mean is not None
    assert up.mean - up.difference == pytest.approx(sum(BASE.values()) / 4)
    assert up.std == pytest.approx(stats.tstd([*UP.values()]))
    assert up.seed_spread == pytest.approx(stats.tstd([*BASE.values()]))


def test_verdicts_tell_better_from_worse_and_from_noise() -> None:
    down = shifted(BASE, -0.1, -0.11, -0.1, -0.09)
    assert [found.verdict for found in against(BASE, UP, NOISY, down)] == ["better", "within noise", "worse"]


def test_where_less_is_better_the_verdict_turns_and_the_numbers_stay() -> None:
    more, less = against(BASE, UP)[0], against(BASE, UP, maximise=False)[0]
    assert less == replace(more, verdict=Verdict.WORSE)


def test_what_is_more_than_noise_alone_may_be_noise_among_many() -> None:
    edge = shifted(BASE, 0.01, 0.03, 0.02, 0.04)
    alone, among = against(BASE, edge)[0], against(BASE, edge, NOISY, NOISY, NOISY)[0]
    assert (alone.verdict, among.verdict) == (Verdict.BETTER, Verdict.NOISE)
    assert (alone.ci_low, alone.ci_high) == (among.ci_low, among.ci_high)
    assert among.ci_low is not None
    assert among.ci_low > 0


def test_pairs_are_over_the_seeds_that_both_have() -> None:
    with_gap = {seed: score for seed, score in UP.items() if seed != 2} | {9: 0.0}
    found = against(BASE, with_gap)[0]
    alike = against({seed: BASE[seed] for seed in (0, 1, 3)}, {seed: UP[seed] for seed in (0, 1, 3)})[0]
    assert found.n == 3
    assert replace(found, seed_spread=alike.seed_spread) == alike


def test_a_variant_without_seeds_is_said_to_have_too_few_and_counts_in_the_family() -> None:
    up, lost = against(BASE, UP, {})
    assert (lost.n, lost.mean, lost.difference, lost.p_t, lost.verdict) == (0, None, None, None, "too few seeds")
    alone = against(BASE, UP)[0].p_t
    assert alone is not None
    assert up.p_t == pytest.approx(2 * alone)


def test_one_seed_has_a_difference_and_no_interval() -> None:
    found = against(BASE, {1: 0.7})[0]
    assert found.difference == pytest.approx(0.06)
    assert (found.n, found.std, found.ci_low, found.p_t, found.verdict) == (1, None, None, None, "too few seeds")


def test_a_base_without_seeds_compares_with_nothing() -> None:
    assert against({}, UP)[0].verdict is Verdict.FEW


def test_a_variant_that_changes_nothing_has_p_1() -> None:
    found = against(BASE, dict(BASE))[0]
    assert (found.difference, found.ci_low, found.ci_high, found.p_t, found.verdict) == (0, 0, 0, 1, "within noise")


@pytest.mark.parametrize(
    ("seeds", "p", "verdict"), [(3, 0.25, "within noise"), (5, 0.0625, "within noise"), (6, 0.03125, "better")]
)
def test_the_same_difference_with_every_seed_counts_by_its_signs(seeds: int, p: float, verdict: str) -> None:
    # 0.1 + 0.07 k - 0.07 k is 0.1 but for rounding.
    base = {seed: 0.07 * seed for seed in range(seeds)}
    found = against(base, {seed: score + 0.1 for seed, score in base.items()})[0]
    assert (found.p_t, found.ci_low, found.ci_high, found.verdict) == (p, None, None, verdict)


def test_the_sign_flip_test_speaks_from_six_seeds_on() -> None:
    base = {seed: 0.5 for seed in range(7)}
    variant = {seed: 0.6 + 0.001 * seed for seed in range(7)}
    few = against({seed: base[seed] for seed in range(5)}, variant)[0]
    many = against(base, variant, variant)[0]
    assert (few.p, few.smallest_p) == (None, 2 / 2**5)
    assert (many.p, many.smallest_p) == (2 * 2 / 2**7, 2 / 2**7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match=r"that of 0 with seed 3 is .*: leave failed trainings out"):
        against(BASE, {3: bad})


@given(ONE_BASE, TABLE, st.randoms(use_true_random=False))
def test_neither_seeds_nor_variants_have_an_order(
    base: dict[int, float], variants: dict[str, dict[int, float]], draw: random.Random
) -> None:
    labels = draw.sample([*variants], len(variants))
    mixed = {label: dict(draw.sample([*variants[label].items()], len(variants[label]))) for label in labels}
    found = compare(base, mixed)
    assert [*found] == labels
    assert found == compare(base, variants)


@given(ONE_BASE, TABLE)
def test_sides_that_change_places_change_signs(base: dict[int, float], variants: dict[str, dict[int, float]]) -> None:
    for scores in variants.values():
        there, back = against(base, scores)[0], against(scores, base)[0]
        assert (there.n, there.p) == (back.n, back.p)
        if there.difference is not None and back.difference is not None:
            assert there.difference == -back.difference


@given(ONE_BASE, TABLE)
def test_every_comparison_has_its_line(base: dict[int, float], variants: dict[str, dict[int, float]]) -> None:
    for found in compare(base, variants).values():
        line = in_words(found)
        assert line.startswith(f"{found.verdict}: ")
        assert "None" not in line
        assert "\n" not in line


def words(base: dict[int, float], *others: dict[int, float]) -> list[str]:
    return [in_words(found) for found in against(base, *others)]


def test_noise_is_told_with_its_interval_and_the_spread() -> None:
    (line,) = words(BASE, NOISY)
    assert line == "within noise: +0.015 [-0.051, +0.081] over 4 seeds; the seeds' own spread is 0.018"


def test_a_find_is_told_with_its_adjusted_p() -> None:
    line = words(BASE, UP, NOISY)[0]
    assert line.startswith("better: +0.101 [+0.096, +0.106] over 4 seeds (p = ")
    assert "among 2 variants); the seeds' own spread" in line


def test_an_interval_beside_0_that_is_noise_among_many_is_explained() -> None:
    edge = shifted(BASE, 0.01, 0.03, 0.02, 0.04)
    line = words(BASE, edge, NOISY, NOISY, NOISY)[0]
    assert line.startswith("within noise: +0.025 [+0.004, +0.046] over 4 seeds (p = 0.12 among 4 variants)")


def test_differences_without_scatter_are_told_without_interval() -> None:
    assert words(BASE, shifted(BASE, 0.1, 0.1, 0.1, 0.1), dict(BASE)) == [
        "within noise: +0.100 with each of 4 seeds (p = 0.25 among 2 variants); the seeds' own spread is 0.018",
        "within noise: the same scores as the base with each of 4 seeds; the seeds' own spread is 0.018",
    ]


def test_too_few_seeds_are_told() -> None:
    assert words(BASE, {1: 0.7}, {}) == [
        "too few seeds: +0.060 with one seed, which says nothing of others",
        "too few seeds: no seed has a score of both the variant and the base",
    ]
