"""What a search is after: objectives, constraints, and which trials no other trial beats.

The first objective is the primary one: schedulers follow it, and tables are sorted by it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from trainers.errors import UsageError

UNKNOWN = 1.0
"""Violation of a constraint whose metric is missing or not a number: as bad as missing the bound by the whole bound.

Optuna refuses NaN. Infinity it takes, but TPE adds violations up, so one unknown metric would hide what the other
constraints say, and NSGA-II could not tell two such trials apart.
"""

NAME = r"[A-Za-z_][\w./ -]*"
CONSTRAINT = re.compile(rf"({NAME}?)\s*(<=|>=)\s*(\S+)")


@dataclass(frozen=True)
class Objective:
    """A reported metric, and which way is better."""

    metric: str
    mode: Literal["max", "min"]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The mode in Optuna's words."""
        return "maximize" if self.maximise else "minimize"

    @property
    def maximise(self) -> bool:
        """Whether more is better."""
        return self.mode == "max"

    def better(self, value: float, than: float) -> bool:
        """Return whether a value is better than another; equal ones are not."""
        return value > than if self.maximise else value < than

    def __str__(self) -> str:
        return f"{self.metric}:{self.mode}"


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial's last report must keep."""

    metric: str
    op: Literal["<=", ">="]
    bound: float

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Return by how much the bound is missed; 0 or less where it holds. Always finite.

        In shares of the bound (as it is where the bound is 0), because Optuna adds up the violations of constraints
        that have different units. A metric that is missing or not finite misses it by `UNKNOWN`.
        """
        value = metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            return UNKNOWN
        excess = value - self.bound if self.op == "<=" else self.bound - value
        return excess / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        return f"{self.metric}{self.op}{self.bound:g}"


def parse_objective(text: str) -> Objective:
    """Return the objective that `METRIC`, `METRIC:max` or `METRIC:min` names; without a mode it is maximised.

    Raises:
        UsageError: the text is none of these.
    """
    metric, colon, mode = text.strip().partition(":")
    if not re.fullmatch(NAME, metric) or (colon and mode not in ("max", "min")):
        raise UsageError(
            f"an objective must be METRIC, METRIC:max or METRIC:min, got {text!r}: write it like time/step_s:min"
        )
    return Objective(metric, cast("Literal['max', 'min']", mode or "max"))


def parse_objectives(texts: Sequence[str]) -> tuple[Objective, ...]:
    """Return the objectives, the primary one first.

    Raises:
        UsageError: there is none, one is malformed, or a metric is named twice.
    """
    objectives = tuple(parse_objective(text) for text in texts)
    if not objectives:
        raise UsageError("a search must have an objective, got none: name one, like dev/miou")
    metrics = [objective.metric for objective in objectives]
    twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
    if twice:
        raise UsageError(f"objectives must be different metrics, got {', '.join(twice)} twice: remove one")
    return objectives


def parse_constraint(text: str) -> Constraint:
    """Return the constraint that `METRIC<=NUMBER` or `METRIC>=NUMBER` states.

    Raises:
        UsageError: the text is neither, or the number is not finite.
    """
    match, bound = CONSTRAINT.fullmatch(text.strip()), math.nan
    if match:
        with suppress(ValueError):
            bound = float(match[3])
    if not match or not math.isfinite(bound):
        raise UsageError(
            f"a constraint must be METRIC<=NUMBER or METRIC>=NUMBER, got {text!r}: write it like time/step_s<=2"
        )
    return Constraint(match[1].strip(), cast("Literal['<=', '>=']", match[2]), bound)


SHOWN = 8
"""Most metrics below one prefix that a refusal lists."""


def check_metrics(option: str, wanted: Iterable[str], known: Collection[str]) -> None:
    """Refuse metrics that no report will hold; where none is known, nothing is refused.

    Raises:
        UsageError: names the option, the nearest metric, and what there is.
    """
    unknown = next((metric for metric in wanted if metric not in known), None)
    if unknown is None or not known:
        return
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    beside = Counter(name.rpartition("/")[0] for name in known)
    parents = ((name, name.rpartition("/")[0]) for name in known)
    listed = dict.fromkeys(name if beside[parent] <= SHOWN else f"{parent}/..." for name, parent in parents)
    raise UsageError(
        f"{option} must name a metric that there will be, got {unknown!r}: "
        f"{f'did you mean {near[0]}? ' if near else ''}There are {', '.join(listed)}"
    )


def values_of(metrics: Mapping[str, float], objectives: Sequence[Objective]) -> list[float] | None:
    """Return the objectives' values in their order; none where one is missing or not finite."""
    values = [metrics.get(objective.metric, math.nan) for objective in objectives]
    return values if all(math.isfinite(value) for value in values) else None


def pareto_front(rows: Sequence[Sequence[float]], objectives: Sequence[Objective]) -> list[int]:
    """Return the indices of the rows (values of feasible, complete trials) that no other row dominates, in their order.

    A row dominates another if it is nowhere worse and somewhere better. Equal rows do not dominate each other, so all
    of them are in the front. A row with NaN is in no front.
    """
    signs = [1.0 if objective.maximise else -1.0 for objective in objectives]
    points = [tuple(sign * value for sign, value in zip(signs, row, strict=True)) for row in rows]
    known = {index: point for index, point in enumerate(points) if not any(map(math.isnan, point))}
    return [i for i, point in known.items() if not any(_dominates(other, point) for other in known.values())]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
