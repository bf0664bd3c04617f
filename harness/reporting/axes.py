"""Axes of searched parameters, from 0 to 1 over the range as the sampler sees it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.ticker import LogLocator, MaxNLocator

from harness.trials import Value
from search_spaces import Parameter
from search_spaces.parameters import is_number

APART = 0.14
"""How far an end of the range must be from the next tick to get one of its own."""


@dataclass(frozen=True)
class Axis:
    """A searched parameter as an axis from 0 to 1."""

    path: str
    scale: Literal["linear", "log", "one minus", "choices"]
    """`one minus`: logarithmic in 1 - value, as momenta are drawn."""
    low: float
    high: float
    choices: tuple[Value, ...] = ()

    def place(self, value: Value) -> float | None:
        """Return where a value lies, 0 to 1 inside of the range; none where it lies nowhere."""
        if self.scale == "choices":
            return (self.choices.index(value) + 0.5) / len(self.choices) if value in self.choices else None
        at, low, high = (self._scaled(number) for number in (value, self.low, self.high))
        if at is None or low is None or high is None:
            return None
        return 0.5 if high == low else (at - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and their labels, the ends of the range among them where there is room."""
        if self.scale == "choices":
            return [((index + 0.5) / len(self.choices), str(choice)) for index, choice in enumerate(self.choices)]
        if self.scale == "linear":
            values = _round_numbers(self.low, self.high)
        elif self.scale == "log":
            values = _powers(self.low, self.high)
        else:
            values = [round(1 - m, 12) for m in _powers(1 - self.high, 1 - self.low)]
        places = [(place, value) for value in values if (place := self.place(value)) is not None]
        for place, end in ((0.0, self.low), (1.0, self.high)):
            if all(abs(place - other) >= APART for other, _ in places):
                places.append((place, end))
        return [(place, f"{value:.6g}") for place, value in sorted(places)]

    def _scaled(self, value: Value) -> float | None:
        if not is_number(value) or not isinstance(value, int | float):
            return None
        if self.scale == "log":
            return math.log(value) if value > 0 else None
        if self.scale == "one minus":
            return -math.log(1 - value) if value < 1 else None
        return value


def axis_of(parameter: Parameter, values: Iterable[Value]) -> Axis:
    """Return the axis of a parameter; wider than its range where a scheduler has left that."""
    if parameter.kind == "categorical":
        return Axis(parameter.path, "choices", 0, 1, parameter.choices)
    numbers = _numbers(values)
    if parameter.between:  # a share of the way: the range of the value itself moves
        return _axis_over(parameter.path, numbers)
    low, high = min([parameter.low, *numbers]), max([parameter.high, *numbers])
    return Axis(parameter.path, "one minus" if parameter.one_minus else "log" if parameter.log else "linear", low, high)


def guessed_axis(path: str, values: Sequence[Value]) -> Axis:
    """Return an axis for a parameter of which only values are known."""
    known = [value for value in values if value is not None]
    numbers = _numbers(known)
    if len(numbers) == len(known) and numbers:
        return _axis_over(path, numbers)
    return Axis(path, "choices", 0, 1, tuple({repr(value): value for value in known}.values()))


def _numbers(values: Iterable[Value]) -> list[float]:
    return [value for value in values if is_number(value) and isinstance(value, int | float)]


def _axis_over(path: str, numbers: Sequence[float]) -> Axis:
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    return Axis(path, "log" if low > 0 and high / low > 50 else "linear", low, high)


def _round_numbers(low: float, high: float) -> list[float]:
    """Return round numbers in a range, or its ends where it holds no two."""
    if low == high:
        return [low]
    ticks = (round(float(tick), 12) for tick in MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else [low, high]


def _powers(low: float, high: float) -> list[float]:
    """Return powers of ten in a range, or numbers that start with 1, 2 or 5 where there are few powers."""
    for leads in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        ticks = map(float, LogLocator(subs=leads, numticks=6).tick_values(low, high))
        inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(inside) >= 3:
            return inside
    return [low, high]
