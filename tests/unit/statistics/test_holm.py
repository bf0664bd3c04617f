"""Holm's adjustment: a worked example, its laws, and the step-down procedure that it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.statistics.compare import holm

PS = st.lists(st.floats(0, 1), max_size=8)
ALPHAS = st.floats(0.001, 0.999)


def step_down(ps: list[float], alpha: float) -> set[int]:
    """The places that Holm's procedure rejects: the smallest first, until one fails."""
    rejected: set[int] = set()
    for place in sorted(range(len(ps)), key=ps.__getitem__):
        if (len(ps) - len(rejected)) * ps[place] > alpha:
            break
        rejected.add(place)
    return rejected


def test_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(PS, ALPHAS)
def test_what_is_below_alpha_is_what_the_procedure_rejects(ps: list[float], alpha: float) -> None:
    assert {place for place, p in enumerate(holm(ps)) if p is not None and p <= alpha} == step_down(ps, alpha)


@given(PS)
def test_no_p_becomes_smaller(ps: list[float]) -> None:
    assert all(adjusted is not None and p <= adjusted <= 1 for p, adjusted in zip(ps, holm(ps), strict=True))


@given(PS)
def test_the_order_of_ps_is_kept(ps: list[float]) -> None:
    adjusted = [p for _, p in sorted(zip(ps, holm(ps), strict=True))]
    assert adjusted == sorted(adjusted, key=lambda p: p or 0.0)


@given(PS, st.randoms(use_true_random=False))
def test_each_p_is_adjusted_alike_wherever_it_stands(ps: list[float], draw: object) -> None:
    places = list(range(len(ps)))
    draw.shuffle(places)  # type: ignore[attr-defined]
    adjusted = holm(ps)
    assert holm([ps[place] for place in places]) == [adjusted[place] for place in places]


@given(PS, st.integers(0, 3))
def test_unknown_ps_count_in_the_family_as_1(ps: list[float], unknown: int) -> None:
    assert holm([*ps, *[None] * unknown]) == [*holm([*ps, *[1.0] * unknown])[: len(ps)], *[None] * unknown]


def test_a_single_p_stays() -> None:
    assert holm([0.03]) == [0.03]


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="must be in"):
        holm([0.1, p])
