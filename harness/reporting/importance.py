"""Which parameters mattered: Optuna's PED-ANOVA on the values at the end, and on those at a rung."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from harness.reporting.records import Record
    from harness.trials import Trial
    from search_spaces import Space

FEWEST = 10
"""Trials below which nothing is said of importance."""
TARGET = 5
"""Trials that count as good ones, at least; Optuna advises it."""


class Importance(NamedTuple):
    """Shares of the importance of all parameters, by config path, highest first."""

    what: str
    """Which value is explained."""
    trials: int
    shares: Mapping[str, float]


def importances(record: Record, rungs: Sequence[int]) -> list[Importance]:
    """Return the importances that can be told: at the horizon, and at a rung, which trials that were stopped saw too.

    Args:
        rungs: optimizer steps at which the scheduler decides. That which most trials reached counts.
    """
    space = record.space
    if space is None:
        return []
    ended = [(trial, trial.best.get("value", math.nan)) for trial in record.trials.values()
             if trial.state == "COMPLETE"]  # fmt: skip
    found = [("best value of complete trials", _finite(ended))]
    seen = {rung: _finite((trial, dict(trial.values).get(rung, math.nan)) for trial in record.trials.values())
            for rung in rungs}  # fmt: skip
    if seen:
        rung = max(seen, key=lambda step: (len(seen[step]), step))
        found.append((f"value at step {rung}", seen[rung]))
    return [
        Importance(what, len(pairs), shares)
        for what, pairs in found
        if len(pairs) >= FEWEST and (shares := _shares(space, pairs, record.maximise))
    ]


def _finite(pairs: Iterable[tuple[Trial, float]]) -> list[tuple[Trial, float]]:
    return [(trial, value) for trial, value in pairs if math.isfinite(value)]


def _shares(space: Space, pairs: Sequence[tuple[Trial, float]], maximise: bool) -> dict[str, float]:
    import optuna

    from harness.search.warm_start import distribution_of

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = {parameter.name: parameter for parameter in space.parameters}
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for trial, value in pairs:
            params = {name: trial.params[name] for name in names if name in trial.params}
            distributions = {name: distribution_of(names[name]) for name in params}
            try:
                study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
            except ValueError:  # a scheduler has moved it out of the space
                continue
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile(len(study.trials)))
        found = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=_varied(study.trials), normalize=False
        )
    total = sum(found.values())  # 0 where good trials and others lie alike: Optuna would call that equal shares
    return {names[name].path: share / total for name, share in found.items()} if total > 0 else {}


def _varied(trials: Sequence[Any]) -> list[str]:
    """Return the parameters that took more than one value; the estimator gives a share to one that never moved.

    It smooths the few good trials more than all of them, so two piles of the same value differ in width.
    """
    values: dict[str, set[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(value)
    return [name for name, seen in values.items() if len(seen) > 1]


def quantile(trials: int) -> float:
    """Return the share of trials that count as good ones: a tenth, or more where that would be less than `TARGET`."""
    return min(0.5, max(0.1, TARGET / max(trials, 1)))
