"""Optuna's samplers by name, what each can do, and a grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from harness.trials import SearchSpace, Value
from harness.tuning.config import check_sampler
from harness.tuning.marks import own_trials
from harness.tuning.objectives import Objective
from harness.tuning.window import WindowedTpe
from search_spaces import Parameter, Space
from trainers.errors import UsageError

MAX_CELLS = 100_000
"""More cells than any search will visit; a grid that has more is a mistake."""


def make_sampler(
    name: str,
    seed: int,
    *,
    space: SearchSpace,
    objectives: Sequence[Objective],
    constrained: bool = False,
    drawn: int = 0,
    points: int = 3,
    driver: str = "",
) -> optuna.samplers.BaseSampler:
    """Return a sampler.

    Args:
        drawn: trials that the study holds already. A sampler begins its random numbers anew with each driver; they are
            derived from (seed, drawn), so that a search that is continued does not draw its first trials again.
            The grid needs no such care: its place is read from the study.
        driver: of a shared study, in hexadecimal digits; two drivers of one seed must not draw the same.

    Raises:
        UsageError: there is no such sampler, or it cannot do what is asked of it.
    """
    check_sampler(name, objectives, constrained, warm=False)
    words = (seed, drawn, int(driver, 16)) if driver else (seed, drawn)
    derived = int(np.random.SeedSequence(words).generate_state(1)[0]) if drawn or driver else seed
    if name == "grid":
        return CellSampler(grid_of(space, points), seed)
    if name == "cmaes":
        steady = (
            frozenset(item.name for item in space.parameters if not item.when) if isinstance(space, Space) else None
        )
        return SteadyCmaEs(steady, derived)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=derived, warn_independent_sampling=False)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=derived)
    return WindowedTpe(derived) if name == "tpe" else optuna.samplers.RandomSampler(seed=derived)


class SteadyCmaEs(optuna.samplers.CmaEsSampler):  # type: ignore[misc]  # optuna is skipped by mypy
    """CMA-ES over the numbers that every trial has.

    Optuna's own takes those that all trials so far happened to have. Where a conditional parameter is missing for the
    first time after a generation was complete, the dimension is no longer that of the generation, and from then on it
    draws everything at random.
    """

    def __init__(self, names: frozenset[str] | None, seed: int) -> None:
        super().__init__(seed=seed, warn_independent_sampling=False)
        self._names = names

    def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        """Return the distributions of the numbers that every trial has."""
        found = super().infer_relative_search_space(study, trial)
        return {name: found[name] for name in found if self._names is None or name in self._names}


class CellSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Draws the cells of a grid, each once, in an order that the seed decides.

    Optuna's GridSampler needs `study.optimize`: where trials are asked and told, telling the last one raises. It knows
    no conditional parameters, and it repeats cells when it is asked for more. Here the place in the grid is the number
    of trials that were drawn before in this study, so a search that is continued goes on where it was. Trials that
    were enqueued (the baseline, one that is tried again) or taken from an earlier search are not draws.
    """

    def __init__(self, cells: Sequence[Mapping[str, Value]], seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(cells))
        self.cells = [cells[index] for index in order]
        """In the order of drawing."""
        self._places: dict[int, int] = {}

    def left(self, study: optuna.Study) -> int:
        """Return how many cells were not drawn yet; ask for no trial when it is 0."""
        return max(0, len(self.cells) - len(_draws(study)))

    def is_past(self, number: int) -> bool:
        """Return whether a trial, by its number in the study, was drawn when no cell was left."""
        return self._places[number] >= len(self.cells)

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Find the cell."""
        self._places[trial.number] = sum(other.number < trial.number for other in _draws(study))

    def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        """Return nothing: every parameter is looked up by itself."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Return the cell's value.

        Raises:
            IndexError: the grid was exhausted before this trial.
        """
        return self.cells[self._places[trial.number]][param_name]


def grid_of(space: SearchSpace, points: int) -> list[dict[str, Value]]:
    """Return the cells of a grid over a space as raw params; the baseline, which is always trial 0, is not among them.

    Floats take `points` values in even distances from end to end of what the sampler draws: on a log scale where the
    parameter has one, as 1 - m or as a share where it is drawn so. Integers and categorical parameters take all their
    values, integers at most `points`. A conditional parameter is in the cells in which it exists.

    Raises:
        UsageError: the space is not one of YAML, or the grid has no points or too many cells.
    """
    if not isinstance(space, Space):
        raise UsageError(f"a grid must be made of a space in YAML, got {space.name}: choose another sampler")
    if points < 1:
        raise UsageError(f"a grid must have at least 1 point a parameter, got {points}: raise it")
    cells = list(itertools.islice(_cells(space, points, {}, {}), MAX_CELLS + 2))
    if len(cells) > MAX_CELLS:
        raise UsageError(
            f"a grid must have at most {MAX_CELLS} cells, got more from {len(space.parameters)} parameters of "
            f"{points} points: take fewer points, a smaller space or another sampler"
        )
    return [cell for cell in cells if cell not in (space.baseline_params, space.ours_params)]


def levels(parameter: Parameter, points: int) -> Sequence[Value]:
    """Return the raw values of a parameter in a grid, ascending; one point is the middle."""
    if parameter.kind == "categorical":
        return parameter.raw_choices
    low, high = parameter.raw_range
    log = parameter.log or parameter.one_minus
    if parameter.kind == "float":
        return _spread(low, high, points, log)
    every = range(int(low), int(high) + 1, parameter.step)
    if len(every) <= points:
        return list(every)
    if log:
        return sorted({min(max(round(value), int(low)), int(high)) for value in _spread(low, high, points, log)})
    return sorted({every[round(place)] for place in _spread(0, len(every) - 1, points, log=False)})


def _spread(low: float, high: float, points: int, log: bool) -> list[float]:
    """Return numbers in even distances; numpy keeps the ends exact."""
    if points == 1:
        return [math.sqrt(low * high) if log else (low + high) / 2]
    spread: list[float] = (np.geomspace if log else np.linspace)(low, high, points).tolist()
    return spread


def _cells(
    space: Space, points: int, params: Mapping[str, Value], values: Mapping[str, Value], place: int = 0
) -> Iterator[dict[str, Value]]:
    if place == len(space.parameters):
        yield dict(params)
        return
    parameter = space.parameters[place]
    if not parameter.applies(values):
        yield from _cells(space, points, params, values, place + 1)
        return
    for raw in levels(parameter, points):
        taken = {**values, parameter.path: parameter.decode(raw, values)}
        yield from _cells(space, points, {**params, parameter.name: raw}, taken, place + 1)


def _draws(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials whose parameters the sampler chose."""
    waiting = optuna.trial.TrialState.WAITING
    return [trial for trial in own_trials(study) if trial.state != waiting and "fixed_params" not in trial.system_attrs]
