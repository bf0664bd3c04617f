"""Marks of trials in a study: which of them are the search's own, and which driver trains them."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

MARK = "s4.warm_start"
"""User attribute of a trial that was taken from elsewhere: its source."""
DRIVER = "s4.driver"
"""User attribute of a trial: which driver trains it."""


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of the search itself, in order of number.

    Left out are those it was started from, and those that were given back: drawn at the moment in which another driver
    drew the last one. Those are FAIL without a parameter.
    """
    return [
        trial for trial in study.get_trials(deepcopy=False)
        if MARK not in trial.user_attrs
        and (trial.params or trial.state is not TrialState.FAIL or DRIVER not in trial.user_attrs)
    ]  # fmt: skip


def num_imported(study: optuna.Study) -> int:
    """Return how many trials were taken from elsewhere. They come first: numbers in the search are that much less."""
    return sum(MARK in trial.user_attrs for trial in study.get_trials(deepcopy=False))
