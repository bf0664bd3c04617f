"""Why the searcher is our own: what Ray's does in the installed version. A failure here is good news."""

from __future__ import annotations

import math

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch


def stock() -> OptunaSearch:
    return OptunaSearch(space={"x": optuna.distributions.FloatDistribution(0, 1)}, metric="miou", mode="max")


def test_a_trial_that_the_scheduler_stopped_is_told_as_complete() -> None:
    searcher = stock()
    searcher.suggest("t")
    searcher.on_trial_complete("t", {"miou": 0.1, "done": True})
    assert searcher._ot_study.trials[0].state is TrialState.COMPLETE


def test_a_trial_whose_value_is_not_a_number_stays_running() -> None:
    searcher = stock()
    searcher.suggest("t")
    searcher.on_trial_complete("t", {"miou": math.nan, "done": True})
    assert searcher._ot_study.trials[0].state is TrialState.RUNNING


def test_intermediate_values_are_at_the_count_of_reports() -> None:
    searcher = stock()
    searcher.suggest("t")
    searcher.on_trial_result("t", {"miou": 0.1, "step": 500, "training_iteration": 1})
    assert searcher._ot_study.trials[0].intermediate_values == {1: 0.1}
