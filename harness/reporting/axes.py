"""Axes of searched parameters: where a value lies between the ends of its range, as the sampler sees the range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from search_spaces.parameters import is_number

if TYPE_CHECKING:
    from harness.trials import Value
    from search_spaces import Parameter

FEW_DIGITS = 6
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

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit(".", 1)[-1]

    def place(self, value: Value) -> float | None:
        """Return where a value lies, 0 to 1 inside of the range; none where it lies nowhere."""
        if self.scale == "choices":
            found = [index for index, choice in enumerate(self.choices) if choice == value]
            return (found[0] + 0.5) / len(self.choices) if found else None
        if not is_number(value) or not isinstance(value, int | float):
            return None
        at, low, high = (self._scaled(number) for number in (value, self.low, self.high))
        if at is None or low is None or high is None:
            return None
        return 0.5 if high == low else (at - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and their labels, the ends of the range among them where there is room."""
        if self.scale == "choices":
            return [(place, str(choice)) for choice in self.choices if (place := self.place(choice)) is not None]
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
        return [(place, f"{value:.{FEW_DIGITS}g}") for place, value in sorted(places)]

    def _scaled(self, value: float) -> float | None:
        if self.scale == "log":
            return math.log(value) if value > 0 else None
        if self.scale == "one minus":
            return -math.log(1 - value) if value < 1 else None
        return value


def axis_of(parameter: Parameter, values: Iterable[Value]) -> Axis:
    """Return the axis of a parameter; wider than its range where a scheduler has left that."""
    if parameter.kind == "categorical":
        return Axis(parameter.path, "choices", 0, 1, parameter.choices)
    numbers = [value for value in values if is_number(value) and isinstance(value, int | float)]
    if parameter.between:  # a share of the way: the range of the value itself moves
        return _seen(parameter.path, numbers)
    low, high = min([parameter.low, *numbers]), max([parameter.high, *numbers])
    return Axis(parameter.path, "one minus" if parameter.one_minus else "log" if parameter.log else "linear", low, high)


def guessed_axis(path: str, values: Sequence[Value]) -> Axis:
    """Return an axis for a parameter of which only values are known."""
    known = [value for value in values if value is not None]
    numbers = [value for value in known if is_number(value) and isinstance(value, int | float)]
    if len(numbers) == len(known) and numbers:
        return _seen(path, numbers)
    return Axis(path, "choices", 0, 1, tuple(dict.fromkeys(known)))


def _seen(path: str, numbers: Sequence[float]) -> Axis:
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    return Axis(path, "log" if low > 0 and high / low > 50 else "linear", low, high)


def _round_numbers(low: float, high: float) -> list[float]:
    """Return round numbers in a range, with its ends where none would be left."""
    if high <= low:
        return [low]
    size = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (size * factor) <= 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [round(index * step, 12) for index in range(first, last + 1)]
    return values if len(values) > 1 else [low, high]


def _powers(low: float, high: float) -> list[float]:
    """Return powers of ten in a range, or numbers that start with 1, 2 or 5 where there are few powers."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1,), (1, 3), (1, 2, 5)):
        values = [lead * 10.0**exponent for exponent in exponents for lead in leads]
        inside = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(inside) >= 3:
            stride = -(-len(inside) // 6)
            return inside[::stride]
    return [low, high]
