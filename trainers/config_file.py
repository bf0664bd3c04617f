"""Configs in files: a preset and what differs from it, as YAML. Every command takes one where it takes a preset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainers.errors import ConfigError
from trainers.presets import load_preset

SUFFIXES = (".yaml", ".yml")
LARGEST_FILE = 2**20
"""Bytes that are read of a file; configs are smaller, and aliases could make much of little."""


def named_config(preset: str) -> tuple[str, dict[str, Any]]:
    """Return the preset of a config, and its settings by dotted path; a name of a preset has none.

    A file holds `preset: NAME` and settings, nested as the config is or by dotted path:

        preset: camvid_css
        data: {root: photos, classes: [sky, road]}
        loss.lambda_c: 0.5

    Raises:
        ConfigError: the file cannot be read or is no mapping of this form.
    """
    if not preset.endswith(SUFFIXES):
        return preset, {}
    path = Path(preset)
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > LARGEST_FILE or ("&" in text and "*" in text and len(text) > LARGEST_FILE // 64):
            raise ConfigError(f"a config file must be small, {path} has {len(text)} letters: is it another file?")
        values = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"a config file must be there, {path} is not ({error.strerror}): check the path") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"a config file must be YAML, {path} is not: {reason}") from None
    if not isinstance(values, dict) or not isinstance(values.get("preset"), str):
        raise ConfigError(f"a config file must hold `preset: NAME` and settings, {path} does not: write them")
    base = values.pop("preset")
    known = load_preset(base).model_dump()
    settings: dict[str, Any] = {}
    for setting, value in _leaves(values, known):
        if setting in settings:
            raise ConfigError(f"a config file must set a path once, {path} sets {setting} twice: remove one")
        settings[setting] = value
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
