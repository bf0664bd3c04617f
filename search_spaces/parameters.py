"""Searched parameters: the distribution of each, and the way from a drawn number to a value of the config.

Two forms exist of every parameter. *Raw* is what the sampler sees, under the parameter's `name`; the *value* is what
the config gets, at its `path`. They differ for momenta (drawn as 1 - m) and for parameters bounded by another one
(drawn as a share of the way).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Value = float | int | str | bool | None | list[Any]
"""What a search can set: a scalar, or a list of them. A sampler sees a list as its JSON text."""

DIGITS = 12
"""Decimals kept when a value is computed, so that 1 - 0.99 is 0.01 and the published value decodes to itself."""


class SpaceError(ValueError):
    """A search space or a request to it is wrong: what must hold, what was given, what to do, a line a fault."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Suggests(Protocol):
    """The part of an Optuna trial that draws."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Draw a number in [low, high]."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Draw a whole number in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """Draw one of the choices."""
        ...


@dataclass(frozen=True)
class Parameter:
    """A dotted config path and the distribution of its values.

    `low` and `high` are those of the value; with `between` they are shares of the way from the value of another
    parameter (`between[0]`) to a bound (`between[1]`).
    """

    path: str
    kind: Literal["float", "int", "categorical"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: int = 1
    choices: tuple[Value, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """Paths of categorical parameters and the values for which this one exists; all must hold."""
    one_minus: bool = False
    between: tuple[str, float] | None = None

    @property
    def name(self) -> str:
        """What the sampler calls it: the path, and how the raw form differs from the value."""
        if self.one_minus:
            return f"{self.path}.one_minus"
        return f"{self.path}.share" if self.between else self.path

    @property
    def raw_choices(self) -> tuple[Value, ...]:
        """The choices as the sampler takes them."""
        return tuple(map(raw_choice, self.choices))

    @property
    def raw_range(self) -> tuple[float, float]:
        """Smallest and largest raw number."""
        if self.one_minus:
            return round(1.0 - self.high, DIGITS), round(1.0 - self.low, DIGITS)
        return self.low, self.high

    @property
    def ends(self) -> tuple[Value, ...]:
        """All choices, or the smallest and the largest raw number."""
        if self.kind == "categorical":
            return self.raw_choices
        low, high = self.raw_range
        return (int(low), int(high)) if self.kind == "int" else (low, high)

    def applies(self, values: Mapping[str, Value]) -> bool:
        """Return whether the parameter exists, given the values of those before it."""
        return all(path in values and values[path] in allowed for path, allowed in self.when.items())

    def suggest(self, trial: Suggests) -> Value:
        """Return a raw value drawn by the trial."""
        if self.kind == "categorical":
            return trial.suggest_categorical(self.name, self.raw_choices)
        low, high = self.raw_range
        if self.kind == "int":
            if self.log:
                return trial.suggest_int(self.name, int(low), int(high), log=True)
            return trial.suggest_int(self.name, int(low), int(high), step=self.step)
        return trial.suggest_float(self.name, low, high, log=self.log or self.one_minus)

    def decode(self, raw: Value, values: Mapping[str, Value]) -> Value:
        """Return the config's value of a raw one, given the values of the parameters before it.

        Raises:
            SpaceError: the raw value is outside what this parameter allows.
        """
        self._check(raw, raw, self.name)
        if self.kind == "categorical":
            return self.choices[next(place for place, other in enumerate(self.raw_choices) if _same(other, raw))]
        if self.kind == "int":
            return int(_number(raw))
        number = _number(raw)
        if self.one_minus:
            return round(1.0 - number, DIGITS)
        if self.between:
            start = _number(values[self.between[0]])
            return round(start + number * (self.between[1] - start), DIGITS)
        return float(number)

    def encode(self, value: Value, values: Mapping[str, Value]) -> Value:
        """Return the raw form of a config's value; `decode` undoes it.

        Raises:
            SpaceError: the value is outside what this parameter allows.
        """
        raw = value
        if self.kind == "float" and is_number(value):
            raw = float(_number(value))
            if self.one_minus:
                raw = round(1.0 - raw, DIGITS)
            elif self.between:
                start = _number(values[self.between[0]])
                raw = round((raw - start) / (self.between[1] - start), DIGITS)
        elif self.kind == "categorical":
            equal = [choice for choice in self.choices if choice == value and _is_bool(choice) == _is_bool(value)]
            raw = raw_choice(min(equal, key=lambda choice: type(choice) is not type(value), default=value))
        self._check(raw, value, self.path)
        return raw

    def _check(self, raw: Value, given: Value, called: str) -> None:
        """Refuse a raw value that could not have been drawn; `given` and `called` are for the message."""
        if self.kind == "categorical":
            if not any(_same(raw, choice) for choice in self.raw_choices):
                raise SpaceError(f"{called} must be one of {list(self.choices)}, got {given!r}: choose one or add it")
            return
        low, high = self.raw_range
        if is_number(raw) and low <= _number(raw) <= high and (self.kind == "float" or isinstance(raw, int)):
            return
        got = f"{given!r}, which is {raw:.6g}" if self.between and is_number(raw) and raw != given else f"{given!r}"
        raise SpaceError(f"{called} must be {self._rule(called)}, got {got}: change the value or widen the range")

    def _rule(self, called: str) -> str:
        """Return what a number must be, in the form that `called` names."""
        if self.between:
            return f"a share in [{self.low}, {self.high}] of the way from {self.between[0]} to {self.between[1]}"
        low, high = self.raw_range if called == self.name else (self.low, self.high)
        return f"{'a whole number' if self.kind == 'int' else 'a number'} in [{low}, {high}]"


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; truth values are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def raw_choice(choice: Value) -> Value:
    """Return a choice as a sampler takes it: a list is its JSON text."""
    return json.dumps(choice) if isinstance(choice, list) else choice


def _same(one: Value, other: Value) -> bool:
    return one == other and type(one) is type(other)


def _is_bool(value: Value) -> bool:
    return isinstance(value, bool)


def _number(value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpaceError(f"a number is needed here, got {value!r}: change the value")
    return value
