"""Search spaces as data: read, checked, and turned from drawn numbers into config overrides.

Trainers are unknown here: paths are text. Whoever holds a base config checks that they exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search_spaces.files import load_named, names_in, read_yaml
from search_spaces.parameters import Parameter, SpaceError, Suggests, Value, raw_choice
from search_spaces.parsing import check_printable, keys_of, noting, parse_parameter, value_of

SHIPPED = Path(__file__).parent
"""Where the spaces that come with the package lie."""
KEYS = ("parameters", "name", "source", "baseline", "ours", "fixed")
"""Of a file; the first is required."""


@dataclass(frozen=True)
class Space:
    """Parameters that a search may change, values that it keeps fixed, and the values that it starts from."""

    name: str
    source: str
    """Where the ranges and the baseline come from; "": the baseline is published nowhere."""
    parameters: tuple[Parameter, ...]
    """In the order of the file, which is the order of drawing."""
    fixed: Mapping[str, Value]
    """Dotted paths and the values that every trial sets them to."""
    published: Mapping[str, Value]
    """Dotted paths and the baseline's values of the parameters that apply to them. Those that a file leaves out are the
    base config's: `starting_from` fills them in."""
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
        """Raw params that decode to the baseline's values: what to enqueue as trial 0.

        Raises:
            SpaceError: the baseline is a config's that is not known yet.
        """
        if self.needs:
            raise SpaceError(
                f"space {self.name} must have a baseline of {', '.join(self.needs)}, its file leaves that to the base "
                "config: fill it in with starting_from"
            )
        return self._encoded(self.published)

    @property
    def needs(self) -> tuple[str, ...]:
        """Paths of parameters of which the baseline holds no value."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.applies(values) and parameter.path in self.published:
                values[parameter.path] = self.published[parameter.path]
        return tuple(item.path for item in self.parameters if item.applies(values) and item.path not in values)

    def starting_from(self, config: Mapping[str, Any]) -> Space:
        """Return the space with a whole baseline: what its file leaves out, as a base config (nested) has it.

        Raises:
            SpaceError: the config has no such path, or a value that the space cannot draw.
        """
        if not self.needs:
            return self
        published, missing = dict(self.published), list[str]()
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if not parameter.applies(values):
                continue
            if parameter.path not in published:
                try:
                    published[parameter.path] = value_of(value_at(config, parameter.path), parameter.path)
                except (LookupError, SpaceError):
                    missing.append(parameter.path)
                    continue
            values[parameter.path] = published[parameter.path]
        if missing:
            raise SpaceError(
                f"baseline must hold {', '.join(missing)}, for the base config has no value there: write it below "
                "`baseline`"
            )
        space = replace(self, published=published)
        _check_together(space)
        return space

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
            conditions = {path: raw_choice(allowed[0]) for path, allowed in parameter.when.items()}
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


def parse_space(text: str, name: str = "space") -> Space:
    """Return the space that a YAML text describes; `name` is its name where the text gives none.

    Raises:
        SpaceError: it does not describe one; the message says where, a line for everything that is wrong.
    """
    data, faults = read_yaml(text), list[str]()
    if not isinstance(data, dict):
        keys_of(data, "the file", required=KEYS[:1], optional=KEYS[1:])
    with noting(faults):
        keys_of(data, "the file", required=KEYS[:1], optional=KEYS[1:])
    for key in ("name", "source"):
        if key in data and (not isinstance(data[key], str) or not data[key].strip()):
            faults.append(f"{key} must be text, got {data[key]!r}: write it, or leave the line out")
    with noting(faults):
        check_printable(str(data.get("name", "")), "name")
    values = dict[str, dict[str, Value]]()
    for key in ("fixed", "baseline", "ours"):
        with noting(faults):
            values[key] = _values(data, key) if key in data else {}
    parameters = _parameters(data, faults) if "parameters" in data else ()
    if faults:
        raise SpaceError(*faults)
    space = Space(
        name=data.get("name", name),
        source=" ".join(data.get("source", "").split()),
        parameters=parameters,
        fixed=values["fixed"],
        published=values["baseline"],
        ours=values["ours"],
        text=text,
    )
    _check_together(space)
    return space


def value_at(config: Mapping[str, Any], path: str) -> Any:
    """Return the value of a nested config at a dotted path.

    Raises:
        LookupError: there is none.
    """
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping):
            raise LookupError(path)
        value = value[key]
    return value


def _parameters(data: Mapping[str, Any], faults: list[str]) -> tuple[Parameter, ...]:
    """Return the parameters that can be read; note what is wrong with the others, but not what follows from it."""
    parameters, failed = list[Parameter](), set[str]()
    with noting(faults):
        for path, spec in _mapping(data, "parameters").items():
            found = list[str]()
            with noting(found):
                parameters.append(parse_parameter(path, spec, parameters))
            if found:
                faults += [] if failed & _refers_to(spec) else found
                failed.add(path)
    return tuple(parameters)


def _refers_to(spec: object) -> set[str]:
    """Return the paths that a parameter's `when` and `between` name."""
    names = [name for key in ("when", "between") if isinstance(spec, dict) for name in spec.get(key) or ()]
    return {name for name in names if isinstance(name, str)}


def _mapping(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data[key]
    if not isinstance(value, dict) or not value or not all(isinstance(path, str) for path in value):
        raise SpaceError(f"{key} must map dotted config paths, got {value!r}: write at least one `path: ...` below it")
    return value


def _values(data: Mapping[str, Any], key: str) -> dict[str, Value]:
    return {path: value_of(value, f"{key}.{path}") for path, value in _mapping(data, key).items()}


def _check_together(space: Space) -> None:
    """Refuse a space whose parts contradict each other, as far as its baseline is known."""
    faults = list[str]()
    overlap = sorted(set(space.paths) & set(space.fixed))
    if overlap:
        faults.append(f"a path must be searched or fixed, got both for {', '.join(overlap)}: remove one")
    if space.needs:
        _refuse_extra("baseline", space.published.keys() - {*space.paths}, faults)
    else:
        _check_configuration(space, "baseline", space.published, faults)
    if space.ours:
        _check_configuration(space, "ours", space.ours, faults)
        if space.ours == space.published:
            faults.append("ours must differ from baseline, got the same values: change or remove it")
    if faults:
        raise SpaceError(*faults)


def _check_configuration(space: Space, key: str, known: Mapping[str, Value], faults: list[str]) -> None:
    """Note what is wrong with the values of `baseline` or `ours`."""
    values, missing, found = dict[str, Value](), list[str](), list[str]()
    for parameter in space.parameters:
        if not parameter.applies(values) or (parameter.between and parameter.between[0] not in values):
            continue
        if parameter.path not in known:
            missing.append(parameter.path)
            continue
        with noting(found):
            parameter.encode(known[parameter.path], values)
            values[parameter.path] = known[parameter.path]
    if missing:
        found.append(f"a value of each parameter must be there, {', '.join(missing)} is missing: add it")
    faults += [f"{key}: {fault}" for fault in found]
    if not found:
        _refuse_extra(key, known.keys() - values.keys(), faults)


def _refuse_extra(key: str, extra: Set[str], faults: list[str]) -> None:
    if extra:
        names = ", ".join(sorted(extra))
        faults.append(f"{key} must hold only parameters that apply to it, got {names}: remove it")
