from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from harness.tuning.config import SearchConfig
from harness.tuning.marks import MARK
from harness.tuning.stopping import COLLAPSED_ENTROPY, MIN_TRIALS, Health, stagnates, why_stop
from trainers.errors import UsageError


def study_of(values: list[float], direction: str = "maximize", mark: bool = False) -> optuna.Study:
    study = optuna.create_study(direction=direction)
    study.add_trials([create_trial(value=value, user_attrs={MARK: "there"} if mark else {}) for value in values])
    return study


EMPTY = study_of([])


@pytest.mark.parametrize(
    ("caps", "elapsed_s", "device_s", "reason"),
    [
        ({}, 1e9, 1e9, None),
        ({"max_hours": 2}, 7199.9, 1e9, None),
        ({"max_hours": 2}, 7200.0, 0.0, "the cap of 2 hours is reached"),
        ({"max_device_hours": 0.5}, 1e9, 1799.9, None),
        ({"max_device_hours": 0.5}, 0.0, 1800.0, "the cap of 0.5 device-hours is reached"),
    ],
)
def test_a_cap_stops_when_it_is_reached(
    caps: dict[str, float], elapsed_s: float, device_s: float, reason: str | None
) -> None:
    assert why_stop(SearchConfig.of(**caps), elapsed_s, device_s, EMPTY) == reason


@pytest.mark.parametrize("cap", [0.0, -1.0, math.nan, math.inf])
def test_a_cap_that_is_none_is_refused(cap: float) -> None:
    for name in ("max_hours", "max_device_hours"):
        with pytest.raises(UsageError, match=f"{name}: Input should be (greater than 0|a finite number)"):
            SearchConfig.of(**{name: cap})


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
@pytest.mark.parametrize(("after", "over"), [(29, False), (30, True)])
def test_a_search_stagnates_after_so_many_trials_without_a_better_one(
    direction: str, sign: int, after: int, over: bool
) -> None:
    study = study_of([sign * value for value in [0.1, 0.9] + [0.5] * after], direction)
    assert (why_stop(SearchConfig.of(terminator=True), 0, 0, study) is not None) == over


def test_nothing_stagnates_before_enough_trials_are_complete() -> None:
    values = [0.9] + [0.5] * (MIN_TRIALS - 2)
    assert not stagnates(study_of(values), trials=3)
    assert stagnates(study_of([*values, 0.5]), trials=3)


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_only_complete_trials_count(state: TrialState) -> None:
    study = study_of([0.9] * 20)
    study.add_trials([create_trial(state=state) for _ in range(40)])
    assert not stagnates(study, trials=30)


def test_earlier_trials_count_neither_as_better_nor_towards_the_number() -> None:
    study = study_of([0.99] * 50, mark=True)
    study.add_trials(study_of([0.01 * number for number in range(25)]).trials)
    assert not stagnates(study, trials=10)


def test_without_the_terminator_a_search_goes_on() -> None:
    assert why_stop(SearchConfig.of(), 0, 0, study_of([0.9] + [0.5] * 99)) is None


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_stagnation_is_what_optunas_terminator_says(direction: str) -> None:
    from optuna.terminator import BestValueStagnationEvaluator, Terminator

    values = np.random.default_rng(0).random(60).tolist()
    with pytest.warns(FutureWarning):
        theirs = Terminator(BestValueStagnationEvaluator(max_stagnation_trials=11), min_n_trials=20)
    ours, said = [], []
    for end in range(1, 61):
        study = study_of(values[:end], direction)
        ours.append(stagnates(study, trials=12))
        said.append(theirs.should_terminate(study))
    assert ours == said
    assert {*said} == {True, False}


def test_the_terminator_refuses_several_objectives() -> None:
    with pytest.raises(UsageError, match="the terminator must have one objective, got 2"):
        stagnates(optuna.create_study(directions=["maximize", "minimize"]), trials=3)


def looks(*entropies: float, on: bool = True) -> list[bool]:
    """Whether a trial that reports these entropies is beyond saving, report by report."""
    health = Health(on)
    return [health.check("t", {"health/predicted_entropy": entropy}) is not None for entropy in entropies]


def test_a_teacher_that_falls_to_one_class_has_collapsed() -> None:
    assert looks(0.0, 0.3, 0.5, 0.01) == [False, False, False, True]


def test_a_young_teacher_that_predicts_one_class_has_not_collapsed() -> None:
    assert looks(0.0, 0.01, 0.0) == [False] * 3


def test_a_teacher_that_never_rose_far_has_not_fallen() -> None:
    assert looks(0.05, 0.01) == [False, False]


def test_the_rule_can_be_turned_off() -> None:
    assert looks(0.5, 0.0, on=False) == [False, False]


def test_trials_are_judged_apart() -> None:
    health = Health()
    health.check("a", {"health/predicted_entropy": 0.5})
    assert health.check("b", {"health/predicted_entropy": 0.0}) is None


@pytest.mark.parametrize("metrics", [{}, {"health/predicted_entropy": math.nan}])
def test_what_is_unknown_is_no_collapse(metrics: dict[str, float]) -> None:
    health = Health()
    health.check("t", {"health/predicted_entropy": 0.5})
    assert health.check("t", metrics) is None


def test_the_reason_stays_known() -> None:
    health = Health()
    for entropy in (0.5, 0.01):
        health.check("t", {"health/predicted_entropy": entropy})
    assert "fell from 0.5 to 0.01" in str(health.reason("t"))


@pytest.mark.parametrize(("classes", "share"), [(21, 0.9933), (11, 0.9943)])
def test_the_threshold_is_the_share_of_one_class_that_its_docstring_says(classes: int, share: float) -> None:
    shares = np.array([share] + [(1 - share) / (classes - 1)] * (classes - 1))
    entropy = -(shares * np.log(shares)).sum() / math.log(classes)
    assert entropy == pytest.approx(COLLAPSED_ENTROPY, rel=0.03)
