"""Search spaces as data: read, checked, and turned from drawn numbers into config overrides.

Trainers are unknown here: paths are text. Whoever holds a base config checks that they exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.files import load_named, names_in, read_yaml
from search_spaces.parameters import Parameter, SpaceError, Suggests, Value
from search_spaces.parsing import check_printable, keys_of, parse_parameter, scalar_of

SHIPPED = Path(__file__).parent
"""Where the spaces that come with the package lie."""


@dataclass(frozen=True)
class Space:
    """Parameters that a search may change, values that it keeps fixed, and the published values that it starts from."""

    name: str
    source: str
    """Where the ranges and the baseline come from."""
    parameters: tuple[Parameter, ...]
    """In the order of the file, which is the order of drawing."""
    fixed: Mapping[str, Value]
    """Dotted paths and the values that every trial sets them to."""
    published: Mapping[str, Value]
    """Dotted paths and the published values of the parameters that apply to them."""
    ours: Mapping[str, Value]
    """The same of a second configuration to start from, whose values are nobody's but the space's; empty: none."""
    text: str
    """The YAML that this was read from, for the record."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Dotted config paths that are searched, in the order of drawing; without those in `fixed`."""
        return tuple(parameter.path for parameter in self.parameters)

    @property
    def baseline_params(self) -> dict[str, Value]:
        """Raw params that decode to the published values: what to enqueue as trial 0."""
        return self._encoded(self.published)

    @property
    def ours_params(self) -> dict[str, Value] | None:
        """The same of `ours`, to enqueue as trial 1; none where there is no such configuration."""
        return self._encoded(self.ours) if self.ours else None

    def _encoded(self, known: Mapping[str, Value]) -> dict[str, Value]:
        params: dict[str, Value] = {}
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.applies(values):
                values[parameter.path] = known[parameter.path]
                params[parameter.name] = parameter.encode(known[parameter.path], values)
        return params

    @property
    def baseline(self) -> dict[str, Value]:
        """Overrides of the published configuration, with the fixed ones: what trial 0 sets."""
        return self.overrides(self.baseline_params)

    def edges(self) -> Iterator[dict[str, Value]]:
        """Yield raw params at both ends of every range and at every choice, the others as in the baseline.

        Enough to see that a config takes the whole of each range. A conditional parameter comes with its condition.
        """
        lowest = {parameter.name: parameter.ends[0] for parameter in self.parameters}
        for parameter in self.parameters:
            conditions = {path: allowed[0] for path, allowed in parameter.when.items()}
            for end in parameter.ends:
                yield {**lowest, **self.baseline_params, **conditions, parameter.name: end}

    def suggest(self, trial: Suggests) -> dict[str, Value]:
        """Return raw params drawn by an Optuna trial; conditional parameters only where they apply."""
        params: dict[str, Value] = {}
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.applies(values):
                raw = parameter.suggest(trial)
                params[parameter.name] = raw
                values[parameter.path] = parameter.decode(raw, values)
        return params

    def overrides(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Return dotted config paths and values of raw params, with the fixed ones.

        Params whose condition does not hold are left out.

        Raises:
            SpaceError: a param is missing, unknown or out of range.
        """
        unknown = sorted(params.keys() - {parameter.name for parameter in self.parameters})
        if unknown:
            raise SpaceError(f"params must be those of space {self.name}, got {', '.join(unknown)}: remove them")
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if not parameter.applies(values):
                continue
            if parameter.name not in params:
                raise SpaceError(f"params of space {self.name} must hold {parameter.name}, it is missing: add it")
            values[parameter.path] = parameter.decode(params[parameter.name], values)
        return {**self.fixed, **values}


def list_spaces() -> list[str]:
    """Return the names of the spaces that come with the package."""
    return names_in(SHIPPED)


def load_space(name_or_path: str | Path) -> Space:
    """Return a space that comes with the package, by name, or one in a YAML file, by path.

    Raises:
        SpaceError: there is no such space, or the file does not describe one.
    """
    return load_named("space", name_or_path, SHIPPED, parse_space)


def parse_space(text: str) -> Space:
    """Return the space that a YAML text describes.

    Raises:
        SpaceError: it does not describe one; the message says where.
    """
    data = read_yaml(text)
    keys_of(data, "the file", required=("name", "source", "baseline", "parameters"), optional=("ours", "fixed"))
    for key in ("name", "source"):
        if not isinstance(data[key], str) or not data[key].strip():
            raise SpaceError(f"{key} must be text, got {data[key]!r}: write it")
    check_printable(data["name"], "name")
    parameters: list[Parameter] = []
    for path, spec in _mapping(data, "parameters").items():
        parameters.append(parse_parameter(path, spec, parameters))
    space = Space(
        name=data["name"],
        source=" ".join(data["source"].split()),
        parameters=tuple(parameters),
        fixed=_values(data, "fixed") if "fixed" in data else {},
        published=_values(data, "baseline"),
        ours=_values(data, "ours") if "ours" in data else {},
        text=text,
    )
    _check_together(space)
    return space


def _mapping(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data[key]
    if not isinstance(value, dict) or not value or not all(isinstance(path, str) for path in value):
        raise SpaceError(f"{key} must map dotted config paths, got {value!r}: write at least one `path: ...` below it")
    return value


def _values(data: Mapping[str, Any], key: str) -> dict[str, Value]:
    return {path: scalar_of(value, f"{key}.{path}") for path, value in _mapping(data, key).items()}


def _check_together(space: Space) -> None:
    """Refuse a space whose parts contradict each other."""
    overlap = sorted(set(space.paths) & set(space.fixed))
    if overlap:
        raise SpaceError(f"a path must be searched or fixed, got both for {', '.join(overlap)}: remove one")
    _check_configuration(space, "baseline", "a published value", space.published)
    if space.ours:
        _check_configuration(space, "ours", "a value", space.ours)
        if space.ours == space.published:
            raise SpaceError("ours must differ from baseline, got the same values: change or remove it")


def _check_configuration(space: Space, key: str, what: str, known: Mapping[str, Value]) -> None:
    values: dict[str, Value] = {}
    for parameter in space.parameters:
        if parameter.applies(values):
            values[parameter.path] = known.get(parameter.path)
    missing, extra = sorted(values.keys() - known.keys()), sorted(known.keys() - values.keys())
    if missing:
        raise SpaceError(f"{key} must hold {what} of each parameter, {', '.join(missing)} is missing: add it")
    if extra:
        raise SpaceError(f"{key} must hold only parameters that apply to it, got {', '.join(extra)}: remove it")
    try:
        space.overrides(space._encoded(known))
    except SpaceError as error:
        raise SpaceError(f"{key}: {error}") from None
