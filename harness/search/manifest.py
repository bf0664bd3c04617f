"""The manifest of a search: what it was asked to do, written before it starts, to resume or confirm it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.files import write_whole
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.search.objectives import Objective
    from harness.trials import Value
    from search_spaces import Space
    from trainers.config import TrainConfig

MANIFEST = "search.yaml"
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a search was asked to do."""

    preset: str
    settings: Mapping[str, Value]
    """What was set by hand, by dotted config path."""
    config: TrainConfig
    """The base config: the preset with the settings."""
    space: Space
    metric: str
    """Name of the metric that is the first objective."""
    data_digest: str
    """Of the splits that the base config trains and is judged on."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """The options of the search itself, by the names of `s4 tune`."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is sought, the primary one first."""
        from harness.search.objectives import parse_objectives

        return parse_objectives(self.plan.get("objective") or [self.metric])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into the search's folder, whole or not at all."""
    data = {
        "version": VERSION,
        "preset": manifest.preset,
        "settings": dict(manifest.settings),
        "metric": manifest.metric,
        "data_digest": manifest.data_digest,
        "plan": dict(manifest.plan),
        "space": manifest.space.text,
        "config_hash": manifest.config.hash,
        "config": manifest.config.model_dump(mode="json"),
    }
    write_whole(folder / MANIFEST, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a search.

    Raises:
        UsageError: there is none, or this version cannot read it.
    """
    from search_spaces.space import parse_space
    from trainers.config import TrainConfig

    path = folder / MANIFEST
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise UsageError(
                f"a manifest must have version {VERSION}, {path} has {data['version']}: use the s4 that wrote it"
            )
        return Manifest(
            preset=data["preset"],
            settings=data["settings"],
            config=TrainConfig.model_validate(data["config"]),
            space=parse_space(data["space"]),
            metric=data["metric"],
            data_digest=data["data_digest"],
            plan=data["plan"],
        )
    except FileNotFoundError:
        raise UsageError(
            f"a search must have written {path}, there is none: check --name and --storage (s4 tune begins a search)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} must be what s4 tune wrote, it is not: {' '.join(str(error).split())}") from None


def check_same(
    manifest: Manifest, config: TrainConfig, space: Space, data_digest: str, plan: Mapping[str, Any], folder: Path
) -> None:
    """Refuse to go on with a search that would not be the same one.

    Args:
        plan: the options that may not change, with their values now.

    Raises:
        UsageError: what differs.
    """
    again = f"begin a new search, for example with --warm-start {folder.name}"
    if config.hash != manifest.config.hash:
        differing = ", ".join(_differences(manifest.config.model_dump(mode="json"), config.model_dump(mode="json")))
        raise UsageError(
            f"a search must go on with the base config it began with, {folder.name} differs now in {differing}: put "
            f"that back, or {again}"
        )
    if space.text != manifest.space.text:
        raise UsageError(
            f"a search must go on with the space it began with, {space.name} has changed since {folder.name} began "
            f"({folder / MANIFEST} holds its text): put it back, or {again}"
        )
    if data_digest != manifest.data_digest:
        raise UsageError(
            f"a search must go on with the data it began with, the splits had digest {manifest.data_digest} and now "
            f"have {data_digest}: put the files back, or {again}"
        )
    for name, value in plan.items():
        if name in manifest.plan and manifest.plan[name] != value:
            raise UsageError(
                f"a search must go on with --{name.replace('_', '-')} {manifest.plan[name]}, got {value}: leave the "
                f"option out, or {again}"
            )


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Return the dotted paths at which two nested dictionaries differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [
            line
            for key in keys
            for line in _differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == now else [f"{path} ({before} then, {now} now)"]
