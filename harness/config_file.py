"""Configs in files: a preset and what differs from it, as YAML. Every command takes one where it takes a preset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.run_folder import write_whole
from search_spaces.files import read_yaml
from search_spaces.parameters import SpaceError
from trainers.errors import ConfigError
from trainers.presets import load_preset

SUFFIXES = (".yaml", ".yml")


def named_config(preset: str) -> tuple[str, dict[str, Any]]:
    """Return the preset of a config, and its settings by dotted path; the name of a preset has none.

    A file holds `preset: NAME` and settings, nested as the config is or by dotted path:

        preset: camvid_css
        data: {root: photos, classes: [sky, road]}
        loss.lambda_c: 0.5

    Raises:
        ConfigError: the file cannot be read, or is not of this form.
    """
    if not preset.endswith(SUFFIXES):
        return preset, {}
    try:
        values = read_yaml(Path(preset).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SpaceError) as error:
        raise ConfigError(
            f"a config file must be YAML that can be read, {preset} is not ({error}): correct the file or its path"
        ) from None
    if not isinstance(values, dict) or not isinstance(values.get("preset"), str):
        raise ConfigError(f"a config file must hold `preset: NAME` and settings, {preset} does not: write them")
    base = values.pop("preset")
    settings: dict[str, Any] = {}
    for path, value in _leaves(values, load_preset(base).model_dump()):
        if path in settings:
            raise ConfigError(f"a config file must set a path once, {preset} sets {path} twice: remove one")
        settings[path] = value
    return base, settings


def _leaves(values: Mapping[Any, Any], known: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by dotted path; a mapping is gone into where the config has a section there."""
    for key, value in values.items():
        section = known
        for part in str(key).split("."):
            section = section.get(part) if isinstance(section, Mapping) else None
        if isinstance(value, Mapping) and isinstance(section, Mapping):
            yield from _leaves(value, section, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def write_config(path: Path, preset: str, settings: Mapping[str, Any], notes: Iterable[str]) -> None:
    """Write a config file that `named_config` reads, whole or not at all, with notes as comments above it.

    Args:
        path: of the file.
        preset: its name.
        settings: by dotted path, as YAML can hold them.
        notes: a line each.
    """
    above = "".join(f"# {line}\n" for line in notes)
    entries = []
    for name, value in {"preset": preset, **settings}.items():
        in_line = None if value and isinstance(value, list | tuple | dict) else False  # as people write them
        entries.append(yaml.safe_dump({name: value}, default_flow_style=in_line, width=120, allow_unicode=True))
    write_whole(path, above + "".join(entries))
