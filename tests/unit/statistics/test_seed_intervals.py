"""Student's intervals over seeds: against scipy, closed forms and simulated noise."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics.intervals import Summary, differences, paired, summary, t_interval

SCORE = st.floats(0, 1)
SCORES = st.dictionaries(st.integers(0, 9), SCORE, min_size=2)


def test_the_interval_is_students() -> None:
    values = [0.61, 0.55, 0.7, 0.64]
    ours = t_interval(values)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_paired_differences_cancel_what_seeds_have_in_common() -> None:
    ours = paired({0: 0.9, 1: 0.1, 2: 0.5}, {2: 0.4, 1: 0.0, 0: 0.8})
    assert ours == pytest.approx((0.1, 0.0, 0.1, 0.1))


def test_the_paired_interval_is_scipys() -> None:
    values, others = {0: 0.6, 1: 0.7, 2: 0.9}, {0: 0.5, 1: 0.65, 2: 0.6}
    theirs = stats.ttest_rel([*values.values()], [*others.values()]).confidence_interval(0.95)
    assert paired(values, others)[2:] == pytest.approx((theirs.low, theirs.high))


def test_seeds_that_only_one_side_has_do_not_count() -> None:
    assert paired({0: 0.9, 1: 0.2, 2: 0.5, 7: 0.0}, {0: 0.8, 1: 0.0, 2: 0.4, 9: 1.0}) == paired(
        {0: 0.9, 1: 0.2, 2: 0.5}, {0: 0.8, 1: 0.0, 2: 0.4}
    )


@given(SCORES, SCORES)
def test_differences_change_their_sign_with_the_sides(values: dict[int, float], others: dict[int, float]) -> None:
    there, back = differences(values, others), differences(others, values)
    assert there == {seed: -difference for seed, difference in back.items()}


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], Summary(0, None, None, None, None)), ([0.5], Summary(1, 0.5, None, None, None))],
)
def test_one_seed_has_a_mean_and_nothing_else(values: list[float], expected: Summary) -> None:
    assert summary(values) == expected


@given(st.lists(SCORE, min_size=2, max_size=8))
def test_of_several_seeds_the_summary_is_the_interval(values: list[float]) -> None:
    assert summary(values) == (len(values), *t_interval(values))


@given(st.lists(SCORE, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(values: list[float], draw: random.Random) -> None:
    mixed = draw.sample(values, len(values))
    assert t_interval(mixed) == pytest.approx(t_interval(values), abs=1e-12)


def test_an_interval_of_one_seed_is_refused() -> None:
    with pytest.raises(statistics.StatisticsError):
        t_interval([0.5])


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    draw = random.Random(0)
    repeats = 2000
    covered = 0
    for _ in range(repeats):
        interval = t_interval([draw.gauss(0.5, 0.1) for _ in range(4)])
        covered += interval.low <= 0.5 <= interval.high
    assert covered / repeats == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / repeats) ** 0.5)
