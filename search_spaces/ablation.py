"""Ablation plans as data: named variants of a base config, written out or generated from parts.

Trainers are unknown here: paths are text. Whoever holds a base config checks that they exist.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from search_spaces.files import load_named, names_in, read_yaml
from search_spaces.parameters import SpaceError, Value, is_number
from search_spaces.parsing import check_printable, keys_of, scalar_of

SHIPPED = Path(__file__).parent / "ablations"
"""Where the plans that come with the package lie."""
Overrides = Mapping[str, Value]
"""Dotted config paths and what they are set to."""
FORMS = ("variants", "leave_one_out", "add_one_in", "cumulative", "levels", "methods", "cross")
"""Forms in which variants are given; a plan has one of them."""
PUBLISHED = ("published", "published_of")
"""Keys of what a paper prints of the variants, and of what it is of."""
METHOD = "method"
"""In place of a path: the name of a method, whose settings stand for it. Whoever holds the base config knows them."""


@dataclass(frozen=True)
class Variant:
    """One row of an ablation's table."""

    name: str
    overrides: Overrides
    """Of the base config, those that all variants share included."""
    group: str = ""
    """Of a crossing plan: its levels of all factors but the last, joined by `/`. Groups are not compared with each
    other."""

    @property
    def level(self) -> str:
        """Its name within its group."""
        return self.name.removeprefix(f"{self.group}/") if self.group else self.name


class PublishedValue(NamedTuple):
    """What a paper prints of a variant, in the unit that it prints."""

    mean: float
    spread: float | None = None
    """What the paper gives behind the mean; none: nothing."""
    about: bool = False
    """Whether the source is not certain of the figures."""

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.2f}"
        return f"{'~' if self.about else ''}{self.mean:.2f}{spread}"


@dataclass(frozen=True)
class Published:
    """Published values of a plan's variants."""

    of: str
    """Data, network and metric that they are of."""
    values: Mapping[str, PublishedValue]
    """By the name of the variant, as far as there are any."""


@dataclass(frozen=True)
class AblationPlan:
    """Variants, and the one that the others are compared with."""

    name: str
    source: str
    """Where the variants come from."""
    preset: str | None
    """Base config where no other is asked for; none: the plan names none."""
    base: str
    """Name of the variant that the others are compared with; of a crossing plan its level, the same in each group."""
    variants: tuple[Variant, ...]
    """In the order of the table; the base among them, and those of a group together."""
    text: str
    """The YAML that this was read from, for the record."""
    published: Published | None = None


def list_plans() -> list[str]:
    """Return the names of the plans that come with the package."""
    return names_in(SHIPPED)


def load_plan(name_or_path: str | Path) -> AblationPlan:
    """Return a plan that comes with the package, by name, or one in a YAML file, by path.

    Raises:
        SpaceError: there is no such plan, or the file does not describe one.
    """
    return load_named("plan", name_or_path, SHIPPED, parse_plan)


def parse_plan(text: str, name: str = "plan") -> AblationPlan:
    """Return the plan that a YAML text describes; `name` is its name where the text gives none.

    Raises:
        SpaceError: it does not describe one; the message says where.
    """
    data = read_yaml(text)
    keys_of(data, "the file", required=(), optional=("name", "source", "preset", "base", "fixed", *PUBLISHED, *FORMS))
    for key in ("name", "source", "preset", "base", "published_of"):
        if key in data and not (isinstance(data[key], str) and data[key].strip()):
            raise SpaceError(f"{key} must be text, got {data[key]!r}: write it")
    check_printable(data.get("name", name), "name")
    forms = [form for form in FORMS if form in data]
    if len(forms) != 1:
        raise SpaceError(f"the file must hold one of {', '.join(FORMS)}, got {', '.join(forms) or 'none'}: keep one")
    variants = _MAKE[forms[0]](data[forms[0]], forms[0])
    groups = {name: name.rpartition("/")[0] if forms == ["cross"] else "" for name in variants}
    made = [Variant(name, overrides, groups[name]) for name, overrides in variants.items()]
    levels = list(dict.fromkeys(variant.level for variant in made))
    base = data.get("base", levels[0])
    if base not in levels:
        near = difflib.get_close_matches(base, levels, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of them"
        raise SpaceError(f"base must be one of the variants {', '.join(levels)}, got {base!r}: {hint}")
    fixed = _overrides(data["fixed"], "fixed") if "fixed" in data else {}
    both = sorted({path for overrides in variants.values() for path in overrides} & set(fixed))
    if both:
        raise SpaceError(f"a path must be fixed or differ between variants, got both for {', '.join(both)}: remove one")
    return AblationPlan(
        name=data.get("name", name),
        source=" ".join(data.get("source", "").split()),
        preset=data.get("preset"),
        base=base,
        variants=tuple(replace(variant, overrides={**fixed, **variant.overrides}) for variant in made),
        text=text,
        published=_published(data, variants) if data.keys() & set(PUBLISHED) else None,
    )


def _published(data: Mapping[str, Any], variants: Collection[str]) -> Published:
    """Return the published values of a plan: a number, `[mean, spread]` or `[mean, spread, about]` a variant."""
    alone = next((key for key in PUBLISHED if key not in data), None)
    if alone is not None:
        raise SpaceError(f"{' and '.join(PUBLISHED)} must come together, got no {alone}: add it")
    values = {}
    for name, given in _mapping(data["published"], "published", least=1).items():
        if name not in variants:
            raise SpaceError(f"published must name variants, got {name!r}: choose of {', '.join(variants)}")
        mean, spread, about = [*(given if isinstance(given, list) else [given]), None, None, None][:3]
        whole = not isinstance(given, list) or 2 <= len(given) <= 3
        if not (whole and is_number(mean) and (spread is None or is_number(spread)) and about in (None, "about")):
            raise SpaceError(
                f"published.{name} must be a number, [mean, spread] or [mean, spread, about], got {given!r}: write one"
            )
        values[name] = PublishedValue(mean, spread, about is not None)
    return Published(" ".join(data["published_of"].split()), values)


def _written(data: object, where: str) -> dict[str, Overrides]:
    """Return variants that are written out: `name: {path: value}`, at least two."""
    variants: dict[str, Overrides] = {
        name: _overrides(spec, f"{where}.{name}") for name, spec in _mapping(data, where, least=2).items()
    }
    names = list(variants)
    for index, name in enumerate(names):
        equal = next((other for other in names[:index] if variants[other] == variants[name]), None)
        if equal is not None:
            raise SpaceError(f"{where} must differ from each other, got {name!r} like {equal!r}: change or remove one")
    return variants


@dataclass(frozen=True)
class _Part:
    present: Overrides
    absent: Overrides


def _parts(data: object, where: str) -> dict[str, _Part]:
    """Return the parts of a method: what is set with each of them, and what without it.

    The keys are `with` and `without`: YAML reads `on` and `off` as true and false.
    """
    parts: dict[str, _Part] = {}
    for name, spec in _mapping(data, where, least=2).items():
        keys_of(spec, f"{where}.{name}", required=("with", "without"), optional=())
        part = _Part(*(_overrides(spec[side], f"{where}.{name}.{side}") for side in ("with", "without")))
        if part.present.keys() != part.absent.keys():
            unpaired = ", ".join(sorted(part.present.keys() ^ part.absent.keys()))
            raise SpaceError(f"{where}.{name} must set the same paths with and without, got {unpaired} once: add it")
        if part.present == part.absent:
            raise SpaceError(f"{where}.{name} must differ between with and without, got the same values: change one")
        parts[name] = part
    paths = [path for part in parts.values() for path in part.present]
    repeated = sorted({path for path in paths if paths.count(path) > 1})
    if repeated:
        raise SpaceError(f"{where} must set a path in one part, got {', '.join(repeated)} in several: separate them")
    return parts


def _with(parts: Mapping[str, _Part], present: Callable[[int], bool]) -> Overrides:
    """Return what is set with the parts whose position is `present`, and without the others."""
    return {
        path: value
        for index, part in enumerate(parts.values())
        for path, value in (part.present if present(index) else part.absent).items()
    }


def _leave_one_out(data: object, where: str) -> dict[str, Overrides]:
    """Return everything, the base, and everything but one part at a time."""
    parts = _parts(data, where)
    without = {f"without {name}": _with(parts, lambda i, left=left: i != left) for left, name in enumerate(parts)}  # type: ignore[misc]
    return {"full": _with(parts, lambda _: True), **without}


def _add_one_in(data: object, where: str) -> dict[str, Overrides]:
    """Return nothing, the base, and one part at a time."""
    parts = _parts(data, where)
    alone = {f"+ {name}": _with(parts, lambda i, added=added: i == added) for added, name in enumerate(parts)}  # type: ignore[misc]
    return {"none": _with(parts, lambda _: False), **alone}


def _cumulative(data: object, where: str) -> dict[str, Overrides]:
    """Return nothing, the base, and the parts one after another on top of each other."""
    parts = _parts(data, where)
    names = list(parts)
    grown = {
        f"+ {' + '.join(names[: last + 1])}": _with(parts, lambda i, last=last: i <= last)  # type: ignore[misc]
        for last in range(len(names))
    }
    return {"none": _with(parts, lambda _: False), **grown}


def _levels(data: object, where: str) -> dict[str, Overrides]:
    """Return a variant for each value of one path, named by it."""
    keys_of(data, where, required=("path", "values"), optional=())
    assert isinstance(data, dict)  # noqa: S101  # keys_of checked it; this tells the type checker
    path, values = data["path"], data["values"]
    if not isinstance(path, str) or not isinstance(values, list) or len(values) < 2:
        raise SpaceError(f"{where} must hold a path and a list of at least two values, got {data!r}: write them")
    levels = [scalar_of(value, f"{where}.values") for value in values]
    variants: dict[str, Overrides] = {f"{path.rpartition('.')[2]}={level}": {path: level} for level in levels}
    if len(variants) < len(levels):
        raise SpaceError(f"{where}.values must be different, got {values!r}: remove the repeated one")
    return variants


def _methods(data: object, where: str) -> dict[str, Overrides]:
    """Return a variant for each method of a list, named by it."""
    if not isinstance(data, list) or len(data) < 2 or not all(isinstance(name, str) for name in data):
        raise SpaceError(f"{where} must be a list of at least two names of methods, got {data!r}: write [a, b]")
    if len(set(data)) < len(data):
        raise SpaceError(f"{where} must be different methods, got {data!r}: remove the repeated one")
    return {name: {METHOD: name} for name in data}


def _cross(data: object, where: str) -> dict[str, Overrides]:
    """Return the product of factors, each with named levels or a list of methods; levels are joined by `/`."""
    crossed: dict[str, Overrides] = {}
    for factor, levels in _mapping(data, where, least=2).items():
        place = f"{where}.{factor}"
        made = _methods(levels, place) if isinstance(levels, list) else _written(levels, place)
        slashed = next((level for level in made if "/" in level), None)
        if slashed is not None:
            raise SpaceError(f"{place} must have levels without '/', which joins them, got {slashed!r}: rename it")
        paths, more = ({path for one in side.values() for path in one} for side in (crossed, made))
        if paths & more:
            raise SpaceError(f"{place} must set no path of another factor, got {', '.join(sorted(paths & more))}: "
                             "separate them")  # fmt: skip
        crossed = {
            f"{name}/{level}": {**ours, **overrides}
            for name, ours in crossed.items()
            for level, overrides in made.items()
        } or made
    return crossed


_MAKE: Mapping[str, Callable[[object, str], dict[str, Overrides]]] = {
    "variants": _written,
    "leave_one_out": _leave_one_out,
    "add_one_in": _add_one_in,
    "cumulative": _cumulative,
    "levels": _levels,
    "methods": _methods,
    "cross": _cross,
}


def _mapping(data: object, where: str, least: int) -> dict[str, Any]:
    if not isinstance(data, dict) or len(data) < least or not all(isinstance(name, str) for name in data):
        raise SpaceError(f"{where} must map at least {least} names to what they set, got {data!r}: write them")
    for name in data:
        check_printable(name, where)
    return data


def _overrides(data: object, where: str) -> dict[str, Value]:
    if not isinstance(data, dict) or not all(isinstance(path, str) for path in data):
        raise SpaceError(f"{where} must map dotted config paths to values, got {data!r}: write `path: value`, or {{}}")
    return {path: scalar_of(value, f"{where}.{path}") for path, value in data.items()}
