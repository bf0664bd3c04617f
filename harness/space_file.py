"""Search spaces for people: a file around the values of a preset, and the table of a space."""

from __future__ import annotations

import difflib
import json
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.experiment import CssExperiment
from harness.formats import counted
from harness.tables import Column, Table
from harness.tuning.config import fit_space
from search_spaces import Parameter, Space, SpaceError
from search_spaces.space import parse_space
from trainers.errors import UsageError
from trainers.overrides import flatten

WIDE, NARROW = 10.0, 2.0
"""Factors to both sides of a value that has no bounds: the second where the config does not take the first."""

ZERO = ((0.0, 1.0), (0.0, 0.1), (0.0, 0.01), (0.0, 0.001))
"""Ranges around 0."""


class Bounds(NamedTuple):
    """What a number of a config may be."""

    low: float
    high: float
    multiple_of: int


def draft_space(words: Sequence[str], experiment: CssExperiment) -> str:
    """Return the YAML of a space around the config's values of the paths that the words name.

    Args:
        words: dotted paths, or their ends: `lr`, `optimizer.lr`.

    Raises:
        SpaceError: a word names no path or several, or no range can be guessed; a line for each.
    """
    known, lines, faults = flatten(experiment.config), list[str](), list[str]()
    for word in dict.fromkeys(words):
        found = [path for path in known if path == word] or [path for path in known if f".{path}".endswith(f".{word}")]
        if len(found) != 1:
            near = found or [path for path in known if path.rpartition(".")[2] in difflib.get_close_matches(
                word.rpartition(".")[2], {path.rpartition(".")[2] for path in known})]  # fmt: skip
            number = f"{len(found)} paths" if found else "none"
            hint = f"write one of {', '.join(near)}" if near else "s4 config lists them"
            faults.append(f"a parameter must be one path of {experiment.name}, {word!r} names {number}: {hint}")
            continue
        guess = guessed(found[0], known[found[0]], experiment)
        if guess is None:
            faults.append(
                f"{found[0]} must have a value around which a range can be guessed, it is {json.dumps(known[found[0]])}"
                f": write its choices by hand, {found[0]}: [A, B]"
            )
        else:
            lines += [f"  # {json.dumps(known[found[0]])} in {experiment.name}", f"  {found[0]}: {guess}"]
    if faults:
        raise SpaceError(*faults)
    text = "parameters:\n" + "".join(f"{line}\n" for line in lines)
    fit_space(parse_space(text), experiment)
    return text


def guessed(path: str, value: Any, experiment: CssExperiment) -> str | None:
    """Return a distribution around a value, as YAML, of which the config takes every end; none where there is none."""
    field = field_of(experiment.base, path)
    options = choices_of(field.annotation) or ([False, True] if isinstance(value, bool) else [])
    if options:
        taken = [option for option in options if option == value or takes(experiment, path, [option])]
        return json.dumps(taken) if len(taken) > 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    draw = _whole if isinstance(value, int) else _fraction
    guesses = draw(value, bounds_of(field))
    return next((text for low, high, text in guesses if low < high and takes(experiment, path, [low, high])), None)


def _whole(value: float, bounds: Bounds) -> Iterator[tuple[float, float, str]]:
    """Yield ranges around a whole number, the widest first: both ends, and their YAML."""
    step = bounds.multiple_of
    for factor in (4, 2):
        low, high = int(value) // factor // step * step, (int(value) * factor or factor) // step * step
        low, high = int(max(low, bounds.low, min(value, 1))), int(min(high, bounds.high))
        if step > 1:
            yield low, high, f"{{int: {{low: {low}, high: {high}, step: {step}}}}}"
        else:
            yield low, high, f"{{int: [{low}, {high}{', log' if low > 0 else ''}]}}"


def _fraction(value: float, bounds: Bounds) -> Iterator[tuple[float, float, str]]:
    """Yield ranges around a number: near 1 by its distance from it, of shares by halves, of others by factors."""
    if 0.9 <= value < 1 == bounds.high:
        low, high = _short(1 - min(WIDE * (1 - value), 0.5)), _short(1 - (1 - value) / WIDE)
        yield low, high, f"{{float: [{low}, {high}], one_minus: true}}"
    if value <= 0:
        yield from ((low, high, f"{{float: [{low}, {high}]}}") for low, high in ZERO)
    for factor in (WIDE, NARROW):
        if bounds.high < float("inf"):
            share = NARROW if factor == WIDE else 1.25
            low, high = _short(max(bounds.low, value / share)), _short(min(bounds.high, value * share))
            yield low, high, f"{{float: [{low}, {high}]}}"
        elif value > 0:
            low, high = _short(max(bounds.low, value / factor)), _short(value * factor)
            yield low, high, f"{{float: [{low}, {high}, log]}}"


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def takes(experiment: CssExperiment, path: str, values: Sequence[Any]) -> bool:
    """Return whether the config takes each of the values at a path."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for value in values:
                experiment.resolve({path: value})
    except UsageError:
        return False
    return True


def field_of(config: BaseModel, path: str) -> FieldInfo:
    """Return the field of a config at a dotted path that exists."""
    *parents, leaf = path.split(".")
    for parent in parents:
        config = getattr(config, parent)
    return type(config).model_fields[leaf]


def bounds_of(field: FieldInfo) -> Bounds:
    """Return the bounds of a field's numbers, as far as it has any."""
    found: dict[str, Any] = {}
    for limit in field.metadata:
        found |= {
            name: getattr(limit, name) for name in ("ge", "gt", "le", "lt", "multiple_of") if hasattr(limit, name)
        }
    low, high = found.get("ge", found.get("gt", float("-inf"))), found.get("le", found.get("lt", float("inf")))
    return Bounds(low, high, found.get("multiple_of", 1))


def choices_of(annotation: Any) -> list[Any]:
    """Return the values of the literals in an annotation."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return [
            choice
            for part in get_args(annotation)
            for choice in (choices_of(part) or ([None] if part is types.NoneType else []))
        ]
    return []


def space_table(space: Space) -> Table:
    """Return the parameters of a space: where each is drawn from, and where searches start."""
    columns = [Column("parameter", weight=2), Column("range", weight=2, prose=True), Column("baseline", align="right")]
    columns += [Column("ours", align="right")] if space.ours else []
    starts = [space.published, *([space.ours] if space.ours else [])]
    rows = [
        [item.path, range_text(item, space), *(start.get(item.path) for start in starts)] for item in space.parameters
    ]
    return Table("space", f"{space.name}: {counted(len(rows), 'parameter')}, drawn in this order", columns, rows)


def range_text(item: Parameter, space: Space) -> str:
    """Return the range of a parameter of a space in words, and when it exists."""
    parts = [f"{item.low:g} to {item.high:g}"]
    if item.kind == "categorical":
        parts = [str(choice) for choice in item.choices]
    elif item.between:
        parts[0] += f" of the way from {item.between[0]} to {item.between[1]:g}"
    parts += ["whole"] if item.kind == "int" else []
    parts += [f"in steps of {item.step}"] if item.step > 1 else []
    parts += ["log"] if item.log else ["log of 1 - m"] if item.one_minus else []
    for path, allowed in item.when.items():
        others = [
            each for above in space.parameters if above.path == path for each in above.choices if each not in allowed
        ]
        fewer, but = (others, "not ") if 0 < len(others) < len(allowed) - 1 else (allowed, "")
        parts.append(f"if {path} is {but}{' or '.join(map(str, fewer))}")
    return ", ".join(parts)
