"""Overrides of a config by dotted paths: `loss.lambda_u=0.5`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from trainers.config import DATA_KINDS
from trainers.config.fields import read_word
from trainers.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def apply_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return the config with the values at these dotted paths replaced, validated as a whole.

    A new `data.name` starts from that data set's defaults, for its fields are others. So does a section that is null,
    such as `augment.labelled`, once a path below it is set; null takes a section away.

    Raises:
        ConfigError: a path does not exist or a value is out of range; one line.
    """
    values = config.model_dump()
    if overrides.get("data.name", _at(values, "data.name")) != _at(values, "data.name"):
        values["data"] = {}
    known = flatten(values)
    for path, value in overrides.items():
        section = path.rpartition(".")[0]
        if known.get(section, 0) is None:
            known[section] = {}
            _set(values, section, {})
        is_data = path.startswith("data.") and values["data"].keys() <= {"name", *_leaves(overrides)}
        takes_away = value is None and isinstance(_at(values, path), Mapping) and _at(values, path)
        if not (path in known or is_data or takes_away or section in known):
            raise ConfigError(_unknown(path, known))
        _set(values, path, value)
    try:
        return type(config).model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error)) from None


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return `path=value` words as overrides, each value as the field at its path is written (`read_word`).

    Raises:
        ConfigError: a word is not of this form, or sets a path twice.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not path or not equals:
            raise ConfigError(f"--set must be PATH=VALUE, got {setting!r}: write for example --set schedule.steps=200")
        if path in overrides:
            raise ConfigError(f"--set must name a path once, got {path} twice: remove one")
        try:
            overrides[path] = read_word(path, text)
        except (yaml.YAMLError, ValueError, RecursionError):  # also no date, too many digits, too deep
            raise ConfigError(f"--set must have a YAML value, got {setting!r}: correct it") from None
    return overrides


def as_setting(path: str, value: Any) -> str:
    """Return the word `path=value` that `parse_settings` reads as this value, JSON-able or with numbers as keys."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
    return path + "=" + text.removesuffix("\n").removesuffix("\n...")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, keys joined with dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def describe(error: ValidationError) -> str:
    """Return pydantic's findings as one line: where, what must hold, what was given."""
    findings = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"] if part not in DATA_KINDS)
        message = item["msg"].removeprefix("Value error, ")
        given = "" if isinstance(item["input"], dict | BaseModel) else f", got {item['input']!r}"
        if item["type"] == "multiple_of":
            step = item["ctx"]["multiple_of"]
            below = item["input"] // step * step
            message, given = f"must be a multiple of {step}", f"{given}: set {below} or {below + step}"
        findings.append(f"{path}: {message}{given}" if path else message)
    return "; ".join(findings)


def _leaves(overrides: Mapping[str, Any]) -> set[str]:
    return {path.removeprefix("data.") for path in overrides if path.startswith("data.")}


def _at(values: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        values = values.get(key, {}) if isinstance(values, Mapping) else {}
    return values


def _set(values: dict[str, Any], path: str, value: object) -> None:
    *parents, leaf = path.split(".")
    for key in parents:
        values = values.get(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"a config path must exist, got {path!r}: {key} is a value, and nothing is below it")
    values[leaf] = value


def _unknown(path: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
    hint = (
        f"did you mean {' or '.join(dict.fromkeys([*same_leaf, *near]))}?"
        if near or same_leaf
        else ("see `s4 train --help` for the sections")
    )
    return f"a config path must exist, got {path!r}: {hint}"
