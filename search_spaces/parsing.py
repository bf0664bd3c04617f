"""Parser of one parameter's YAML: a `Parameter`, or one line that says what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from search_spaces.parameters import Parameter, SpaceError, Value, is_number, raw_choice

LARGEST = 2**53
"""Whole numbers up to here are exact as floats, which samplers draw."""
KINDS: tuple[Literal["float", "int", "categorical"], ...] = ("float", "int", "categorical")


def keys_of(data: object, where: str, required: Sequence[str], optional: Sequence[str]) -> None:
    """Check that `data` is a mapping with these keys and no others.

    Raises:
        SpaceError: it is not.
    """
    allowed = [*required, *optional]
    if not isinstance(data, dict):
        raise SpaceError(f"{where} must be a mapping with {', '.join(allowed)}, got {data!r}: write `key: value` lines")
    faults = []
    for key in data:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            faults.append(f"{where} must hold only {', '.join(allowed)}, got {key!r}: {hint}")
    faults += [f"{where} must hold {key}, it is missing: add it" for key in required if key not in data]
    if faults:
        raise SpaceError(*faults)


@contextmanager
def noting(faults: list[str]) -> Iterator[None]:
    """Note what is wrong, and go on: whoever reads a file says all of it at once."""
    try:
        yield
    except SpaceError as error:
        faults += error.faults


def check_printable(name: str, where: str) -> None:
    """Refuse a name that a terminal would obey and not show.

    Raises:
        SpaceError: it holds control characters.
    """
    if not name.isprintable():
        raise SpaceError(f"{where} must hold printable names, got {name!r}: write one on one line")


def scalar_of(value: object, where: str) -> Value:
    """Return the value as a scalar that a config can take.

    Raises:
        SpaceError: it is a list, a mapping or a date.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise SpaceError(f"{where} must be a number, text, true, false or null, got {value!r}: write one of these")


def value_of(value: object, where: str) -> Value:
    """Return the value as one that a config can take: a scalar, or a list of values.

    Raises:
        SpaceError: it is a mapping or a date, or holds one.
    """
    return [value_of(item, where) for item in value] if isinstance(value, list) else scalar_of(value, where)


def parse_parameter(path: str, spec: object, before: Sequence[Parameter]) -> Parameter:
    """Return the parameter that `path: spec` describes; `before` holds those above it in the file.

    Raises:
        SpaceError: it describes none.
    """
    where = f"parameters.{path}"
    if isinstance(spec, list):
        spec = {"categorical": spec}
    keys_of(spec, where, required=(), optional=(*KINDS, "when", "one_minus", "between"))
    assert isinstance(spec, dict)  # noqa: S101  # keys_of checked it; this tells the type checker
    kinds = [kind for kind in KINDS if kind in spec]
    if len(kinds) != 1:
        raise SpaceError(f"{where} must hold one of {', '.join(KINDS)}, got {', '.join(kinds) or 'none'}: keep one")
    kind = kinds[0]
    when = _when(spec["when"], where, before) if "when" in spec else {}
    if kind == "categorical":
        if "one_minus" in spec or "between" in spec:
            raise SpaceError(f"{where} must be a float for one_minus and between, got categorical: remove them")
        return Parameter(path, kind, choices=_choices(spec[kind], f"{where}.categorical"), when=when)
    one_minus = _flag(spec.get("one_minus", False), f"{where}.one_minus")
    between = _between(spec["between"], where, before) if "between" in spec else None
    if (one_minus or between) and kind == "int":
        raise SpaceError(f"{where} must be a float for one_minus and between, got int: remove them")
    if one_minus and between:
        raise SpaceError(f"{where} must hold one_minus or between, got both: remove one")
    low, high, log, step = _range(spec[kind], f"{where}.{kind}", kind)
    _check_form(where, low, high, log, one_minus, between)
    return Parameter(path, kind, low, high, log, step, when=when, one_minus=one_minus, between=between)


def _range(spec: object, where: str, kind: Literal["float", "int"]) -> tuple[float, float, bool, int]:
    """Return low, high, log and step of a numeric parameter: a mapping, `[low, high]` or `[low, high, log]`."""
    spec = _bounds(spec, where) if isinstance(spec, list) else spec
    keys_of(spec, where, required=("low", "high"), optional=("log", "step") if kind == "int" else ("log",))
    assert isinstance(spec, dict)  # noqa: S101  # as above
    for key in ("low", "high"):
        if not is_number(spec[key]) or (kind == "int" and not isinstance(spec[key], int)):
            number = "a whole number" if kind == "int" else "a number"
            raise SpaceError(f"{where}.{key} must be {number}, got {spec[key]!r}: write one")
    low, high = spec["low"], spec["high"]
    if kind == "int" and max(abs(low), abs(high)) > LARGEST:
        raise SpaceError(f"{where} must have bounds of at most {LARGEST}, got low={low}, high={high}: narrow it")
    if not low < high:
        raise SpaceError(f"{where} must have low < high, got low={low}, high={high}: exchange or widen them")
    log = _flag(spec.get("log", False), f"{where}.log")
    if log and low <= 0:
        raise SpaceError(f"{where} must have low > 0 for a log scale, got low={low}: raise low or remove log")
    if kind == "float":
        return float(low), float(high), log, 1
    step = spec.get("step", 1)
    if isinstance(step, bool) or not isinstance(step, int) or step < 1 or (high - low) % step:
        raise SpaceError(f"{where}.step must be a whole number that divides high - low, got {step!r}: change it")
    if log and step != 1:
        raise SpaceError(f"{where} must hold log or step, got both: remove one")
    return low, high, log, step


def _bounds(spec: Sequence[object], where: str) -> dict[str, object]:
    if len(spec) == 2 or (len(spec) == 3 and spec[2] == "log"):
        return {"low": spec[0], "high": spec[1], "log": len(spec) == 3}
    raise SpaceError(f"{where} must be [low, high], [low, high, log] or a mapping, got {spec!r}: write one of them")


def _check_form(
    where: str, low: float, high: float, log: bool, one_minus: bool, between: tuple[str, float] | None
) -> None:
    """Refuse ranges that the raw form of the parameter cannot take."""
    if (one_minus or between) and log:
        reason = "one_minus is a log scale already" if one_minus else "a share of the way has no log scale"
        raise SpaceError(f"{where} must not hold log ({reason}), got log: true: remove it")
    if one_minus and not high < 1:
        raise SpaceError(f"{where} must have high < 1 for one_minus, got high={high}: lower it")
    if between and not 0 < low < high <= 1:
        raise SpaceError(
            f"{where} must have 0 < low < high <= 1, shares of the way, got low={low}, high={high}: change them"
        )


def _choices(spec: object, where: str) -> tuple[Value, ...]:
    if not isinstance(spec, list) or len(spec) < 2:
        raise SpaceError(f"{where} must be a list of at least two values, got {spec!r}: write [a, b]")
    choices = tuple(value_of(value, where) for value in spec)
    if len({(type(raw), raw) for raw in map(raw_choice, choices)}) < len(choices):
        raise SpaceError(f"{where} must be different values, got {spec!r}: remove the repeated one")
    return choices


def _when(spec: object, where: str, before: Sequence[Parameter]) -> Mapping[str, tuple[Value, ...]]:
    """Return the condition: paths of categorical parameters above, and the values that hold."""
    categorical = {
        parameter.path: parameter for parameter in before if parameter.kind == "categorical" and not parameter.when
    }
    if not isinstance(spec, dict) or not spec:
        raise SpaceError(f"{where}.when must map a categorical path to a value or a list, got {spec!r}: write one")
    when: dict[str, tuple[Value, ...]] = {}
    for path, given in spec.items():
        if path not in categorical:
            raise SpaceError(
                f"{where}.when must name a categorical parameter above it without when, got {path!r}: "
                "move or correct it"
            )
        choices = categorical[path].choices
        but = isinstance(given, dict) and given.keys() == {"not"}
        listed = given["not"] if but else given
        named = tuple(value_of(value, f"{where}.when") for value in (listed if isinstance(listed, list) else [listed]))
        allowed = tuple(choice for choice in choices if choice not in named) if but else named
        if not named or not allowed or any(value not in choices for value in named):
            raise SpaceError(
                f"{where}.when must hold values of {path}, {[*choices]}, got {given!r}: choose of them, or `not` some"
            )
        when[path] = allowed
    return when


def _between(spec: object, where: str, before: Sequence[Parameter]) -> tuple[str, float]:
    """Return the path of the parameter that the way starts from, and the number where it ends."""
    if not isinstance(spec, list) or len(spec) != 2 or not isinstance(spec[0], str) or not is_number(spec[1]):
        raise SpaceError(f"{where}.between must be [path, number], got {spec!r}: write a parameter above and a bound")
    path, bound = spec[0], float(spec[1])
    start = next((parameter for parameter in before if parameter.path == path), None)
    if start is None or start.kind == "categorical" or start.when or start.between:
        raise SpaceError(
            f"{where}.between must start at a numeric parameter above it without when or between, got {path!r}: "
            "move or correct it"
        )
    if start.low <= bound <= start.high:
        raise SpaceError(
            f"{where}.between must end outside the range of {path}, [{start.low}, {start.high}], got {bound}: move it"
        )
    return path, bound


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise SpaceError(f"{where} must be true or false, got {value!r}: write one of them")
    return value
