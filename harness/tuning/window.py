"""TPE that stays quick in a search of thousands of trials."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState

WINDOW = 2000
"""Trials that ended, up to which all are looked at, and of more the newest."""
SLIDE = 100
"""Trials by which the window moves at a time."""
GOOD = 25
"""Trials that Optuna's TPE takes for good ones, at most."""


class WindowedTpe(optuna.samplers.TPESampler):  # type: ignore[misc]  # optuna is skipped by mypy
    """Optuna's TPE over the newest trials and the best of all; up to `WINDOW` trials it is Optuna's own to the bit.

    TPE compares the density of good trials with that of all others. The good ones of one objective are the same as
    without a window. Of the others those before it are left out, to which Optuna gives the lowest weights.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._edge = 0
        """Trials that had ended before the window, when it moved last."""
        self._best_before: list[FrozenTrial] = []

    def _sample(self, study: Any, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        drawn: dict[str, Any] = super()._sample(_Seen(study, self), trial, search_space)
        return drawn

    def seen(self, study: optuna.Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return those of the trials that ended or are running, in order of number, that are looked at."""
        ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
        edge = max(0, len(ended) - WINDOW) // SLIDE * SLIDE
        if edge == 0:
            return trials
        if edge != self._edge:
            self._best_before, _ = _split_trials(study, ended[:edge], GOOD)
            self._edge = edge
        first = ended[edge].number
        others = [trial for trial in trials if trial.number >= first or trial.state is TrialState.RUNNING]
        return sorted([*self._best_before, *others], key=lambda trial: trial.number)


class _Seen:
    """A study that shows some of its trials."""

    def __init__(self, study: optuna.Study, sampler: WindowedTpe) -> None:
        self._study, self._sampler = study, sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, **options: Any) -> list[FrozenTrial]:
        return self._sampler.seen(self._study, self._study._get_trials(**options))
