"""A thousand simulated ablations: what verdicts and intervals promise, they keep.

Six variants, three to five seeds in turn; scores are a base's, plus what a seed does to all variants alike, plus noise
of each training's own. Every figure is compared with its promise, three standard errors of the simulation allowed;
`pytest -rP` prints them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pytest

from harness.statistics.compare import Comparison, compare

ABLATIONS = 1000
SEEDS = (3, 4, 5)
EFFECTS = (0.0, 0.0, 0.0, 0.02, -0.04, 0.1)
COMMON, OWN = 0.03, 0.02
"""Standard deviations: of what a seed does to all variants, and of each training's own noise."""


class Ablation(NamedTuple):
    effects: Mapping[str, float]
    found: Mapping[str, Comparison]

    def called(self, *effects: float) -> list[str]:
        """Verdicts that are not noise, of the variants with these true effects."""
        wanted = [label for label, effect in self.effects.items() if effect in effects]
        return [str(self.found[label].verdict) for label in wanted if self.found[label].verdict in ("better", "worse")]


def simulate(effects: tuple[float, ...], seed: int) -> list[Ablation]:
    draw = np.random.default_rng(seed)
    ablations = []
    for number in range(ABLATIONS):
        seeds = SEEDS[number % len(SEEDS)]
        common = 0.6 + draw.normal(0, COMMON, seeds)
        scores = common + np.array([0.0, *effects])[:, None] + draw.normal(0, OWN, (1 + len(effects), seeds))
        base, *variants = [dict(enumerate(row.tolist())) for row in scores]
        named = {str(place): row for place, row in enumerate(variants)}
        ablations.append(Ablation(dict(zip(named, effects, strict=True)), compare(base, named)))
    return ablations


@pytest.fixture(scope="module")
def nothing_works() -> list[Ablation]:
    return simulate((0.0,) * 6, 1)


@pytest.fixture(scope="module")
def some_work() -> list[Ablation]:
    return simulate(EFFECTS, 2)


def share(title: str, outcomes: Iterable[bool]) -> float:
    found = float(np.mean([*outcomes]))
    print(f"{title}: {found:.3f}")
    return found


def covers(row: Comparison, effect: float) -> bool:
    assert row.ci_low is not None
    assert row.ci_high is not None
    return row.ci_low <= effect <= row.ci_high


def margin(rate: float, repeats: int) -> float:
    return 3 * math.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.parametrize("place", range(6))
def test_intervals_hold_the_true_difference_in_95_of_100_ablations(some_work: list[Ablation], place: int) -> None:
    effect = EFFECTS[place]
    covered = share(f"coverage, effect {effect}", (covers(one.found[str(place)], effect) for one in some_work))
    assert covered == pytest.approx(0.95, abs=margin(0.95, ABLATIONS))


@pytest.mark.parametrize("seeds", SEEDS)
def test_intervals_hold_it_with_every_number_of_seeds(some_work: list[Ablation], seeds: int) -> None:
    rows = [one.found["0"] for one in some_work if one.found["0"].n == seeds]
    covered = share(f"coverage, {seeds} seeds", (covers(row, 0) for row in rows))
    assert covered == pytest.approx(0.95, abs=margin(0.95, len(rows)))


def test_where_nothing_works_no_variant_is_called_better_in_more_than_5_of_100(nothing_works: list[Ablation]) -> None:
    found = share("called better where nothing works", ("better" in one.called(0.0) for one in nothing_works))
    assert found <= 0.05 + margin(0.05, ABLATIONS)


def test_where_nothing_works_none_is_called_anything_in_more_than_5_of_100(nothing_works: list[Ablation]) -> None:
    found = share("called better or worse where nothing works", (bool(one.called(0.0)) for one in nothing_works))
    assert found <= 0.05 + margin(0.05, ABLATIONS)


def test_intervals_that_are_read_one_by_one_find_too_much(nothing_works: list[Ablation]) -> None:
    # The control: without Holm's adjustment the simulation does see false finds.
    naive = (not all(covers(row, 0) for row in one.found.values()) for one in nothing_works)
    assert share("an interval without 0 where nothing works", naive) > 0.1


def test_beside_variants_that_work_those_that_do_not_are_still_noise(some_work: list[Ablation]) -> None:
    found = share("false finds where some work", (bool(one.called(0.0)) for one in some_work))
    assert found <= 0.05 + margin(0.05, ABLATIONS)


@pytest.mark.parametrize("seeds", SEEDS)
def test_more_seeds_find_a_large_effect_more_often_and_never_the_wrong_way(
    some_work: list[Ablation], seeds: int
) -> None:
    calls = [one.called(0.1) for one in some_work if one.found["5"].n == seeds]
    found = share(f"effect 0.1 found with {seeds} seeds", (call == ["better"] for call in calls))
    assert found > {3: 0.1, 4: 0.5, 5: 0.8}[seeds]
    assert ["worse"] not in calls
