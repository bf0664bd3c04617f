"""Population-based training over gangs: Ray's scheduler, and how a config is changed inside its space."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import PopulationBasedTraining

from harness.trials import Value
from search_spaces import Parameter, Space

Config = dict[str, Any]
"""Config of a Tune trial: `number`, `params` (raw, by name) and `job`; after an exploit also `donor`."""
WITHOUT_SEARCHER = SimpleNamespace(search_alg=None)
"""What `on_trial_add` asks its controller for: the searcher, to refuse it."""


@dataclass(frozen=True)
class Explore:
    """How a config is changed when its trial goes on from another's checkpoint."""

    mutations: Mapping[str, Any]
    """In Ray's form: parameters that every trial has, as lists to step along or functions that draw anew."""
    finish: Callable[[Config], Config]
    """Brings what Ray made back into the space, and rebuilds what follows from it. Called with the number of the trial
    that goes on, and with `donor`, the number of the trial whose params and checkpoint it goes on from."""


class GangPopulation(PopulationBasedTraining):  # type: ignore[misc]  # ray is untyped
    """Ray's PBT, asynchronous, whose population is drawn by our searcher.

    Ray refuses a searcher because it would not learn of changed configs. Ours hands out the first configs and the
    numbers, and learns nothing. PBT draws from Python's global generator: seed it for the same search twice.
    """

    def __init__(self, explore: Explore, perturb_steps: int, grace_steps: int, **settings: Any) -> None:
        """Exploit every `perturb_steps` optimizer steps of a trial, first after `grace_steps`."""
        super().__init__(
            perturbation_interval=perturb_steps,
            burn_in_period=grace_steps,
            hyperparam_mutations=dict(explore.mutations),
            log_config=False,
            require_attrs=False,  # a trial that failed has no objective
            **settings,
        )
        self._finish = explore.finish

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Take a member into the population."""
        super().on_trial_add(WITHOUT_SEARCHER, trial)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[Config, dict[str, Any]]:
        """Return the config that a trial goes on with, and Ray's words for what was changed.

        Ray copies the donor's whole config, its number and job included, and a `custom_explore_fn` is not told for
        which trial; so this is done here.
        """
        config, operations = super()._get_new_config(trial, trial_to_clone)
        numbers = {"number": trial.config["number"], "donor": trial_to_clone.config["number"]}
        return self._finish({**config, **numbers}), operations


def explorer(space: Space, rebuild: Callable[[Config], Config]) -> Explore:
    """Return how PBT changes configs of this space.

    Ray multiplies a raw number by 0.8 or 1.2 or draws it anew, and moves along the choices of a categorical parameter.
    Afterwards every value is moved into its range, parameters whose condition no longer holds are dropped, and those
    whose condition now holds are drawn. `rebuild` gives a config with new `params` the job that trains them.
    """
    always = [parameter for parameter in space.parameters if not parameter.when]
    return Explore(
        mutations={"params": {parameter.name: _mutation(parameter) for parameter in always}},
        finish=lambda config: rebuild({**config, "params": inside(space, config["params"])}),
    )


def inside(space: Space, params: Mapping[str, Value]) -> dict[str, Value]:
    """Return the params moved into the space: each in its range, and those that exist under these values."""
    mended: dict[str, Value] = {}
    values: dict[str, Value] = {}
    for parameter in space.parameters:
        if not parameter.applies(values):
            continue
        raw = params[parameter.name] if parameter.name in params else draw(parameter)
        mended[parameter.name] = raw = _clamp(parameter, raw)
        values[parameter.path] = parameter.decode(raw, values)
    return mended


def draw(parameter: Parameter) -> Value:
    """Return a raw value at random, evenly in what the sampler draws from."""
    if parameter.kind == "categorical":
        return random.choice(parameter.raw_choices)
    low, high = parameter.raw_range
    if parameter.kind == "int" and not parameter.log:
        return random.randrange(int(low), int(high) + 1, parameter.step)
    if parameter.log or parameter.one_minus:
        number = math.exp(random.uniform(math.log(low), math.log(high)))
    else:
        number = random.uniform(low, high)
    return _clamp(parameter, round(number) if parameter.kind == "int" else number)


def _mutation(parameter: Parameter) -> Any:
    return list(parameter.raw_choices) if parameter.kind == "categorical" else lambda: draw(parameter)


def _clamp(parameter: Parameter, raw: Value) -> Value:
    """Return the nearest raw value that the parameter can have."""
    if parameter.kind == "categorical" or not isinstance(raw, int | float):
        return raw
    low, high = parameter.raw_range
    number = min(max(raw, low), high)
    if parameter.kind == "float":
        return float(number)
    return int(low) + parameter.step * round((number - low) / parameter.step)
