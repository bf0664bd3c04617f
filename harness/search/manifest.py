"""What a search or a training was asked to do, written before it starts, to resume or confirm it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from harness.run_folder import write_whole
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.search.objectives import Objective
    from harness.trials import Value
    from search_spaces import Space
    from trainers.config import TrainConfig

Read = TypeVar("Read", bound="Origin")
SEARCH, TRAINING = "search.yaml", "train.yaml"
VERSION = 1


@dataclass(frozen=True)
class Origin:
    """What a training, or all trials of a search, began with."""

    preset: str
    settings: Mapping[str, Value]
    """What was set by hand, by dotted config path."""
    config: TrainConfig
    """The base config: the preset with the settings."""
    data_digest: str
    """Of the splits that the base config trains and is judged on."""


@dataclass(frozen=True)
class Manifest(Origin):
    """What a search was asked to do."""

    space: Space
    metric: str
    """Name of the metric that is the first objective."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """The options of the search itself, by the names of `s4 tune`."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is sought, the primary one first."""
        from harness.search.objectives import parse_objectives

        return parse_objectives(self.plan.get("objective") or [self.metric])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into the search's folder, whole or not at all."""
    more = {"metric": manifest.metric, "plan": dict(manifest.plan), "space": manifest.space.text}
    write_begun(folder / SEARCH, manifest, more)


def write_origin(folder: Path, origin: Origin) -> None:
    """Write what a training began with into its folder, whole or not at all."""
    write_begun(folder / TRAINING, origin, {})


def write_begun(path: Path, origin: Origin, more: Mapping[str, Any]) -> None:
    """Write what something begins with, whole or not at all; `more` goes between the origin and its config."""
    data = {
        "version": VERSION,
        "preset": origin.preset,
        "settings": dict(origin.settings),
        "data_digest": origin.data_digest,
        **more,
        "config_hash": origin.config.hash,
        "config": origin.config.model_dump(mode="json"),
    }
    write_whole(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a search.

    Raises:
        UsageError: there is none, or this version cannot read it.
    """
    from search_spaces.space import parse_space

    def parse(origin: Origin, data: Mapping[str, Any]) -> Manifest:
        space = parse_space(data["space"])
        return Manifest(**origin.__dict__, space=space, metric=data["metric"], plan=data["plan"])

    return read_begun(folder / SEARCH, "a search", "s4 tune", parse)


def read_origin(folder: Path) -> Origin:
    """Return what a training began with.

    Raises:
        UsageError: nothing was written, or this version cannot read it.
    """
    return read_begun(folder / TRAINING, "a training", "s4 train", lambda origin, data: origin)


def read_begun(path: Path, what: str, command: str, parse: Callable[[Origin, Mapping[str, Any]], Read]) -> Read:
    """Return what `write_begun` wrote.

    Args:
        what: wrote it, with its article: `a search`.
        command: begins such a thing.
        parse: makes the value from the origin and the whole file.

    Raises:
        UsageError: nothing was written, or this version cannot read it.
    """
    from trainers.config import TrainConfig

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise UsageError(f"{path} must have version {VERSION}, it has {data['version']}: use the s4 that wrote it")
        config = TrainConfig.model_validate(data["config"])
        return parse(Origin(data["preset"], data["settings"], config, data["data_digest"]), data)
    except FileNotFoundError:
        raise UsageError(
            f"{what} must have written {path}, there is none: check --name and --storage ({command} begins {what})"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} must be what {command} wrote, it is not: {' '.join(str(error).split())}") from None


def check_same_origin(before: Origin, config: TrainConfig, data_digest: str, what: str, otherwise: str) -> None:
    """Refuse to go on with other settings or other data than at the beginning.

    Args:
        what: `a search`, `a training`.
        otherwise: what else could be done.

    Raises:
        UsageError: what differs.
    """
    if config.hash != before.config.hash:
        differing = ", ".join(_differences(before.config.model_dump(mode="json"), config.model_dump(mode="json")))
        raise UsageError(
            f"{what} must go on with the config it began with, it differs now in {differing}: put that back, or "
            f"{otherwise}"
        )
    if data_digest != before.data_digest:
        raise UsageError(
            f"{what} must go on with the data it began with, the splits had digest {before.data_digest} and now "
            f"have {data_digest}: put the files back, or {otherwise}"
        )


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
    check_same_origin(manifest, config, data_digest, "a search", again)
    if space.text != manifest.space.text:
        raise UsageError(
            f"a search must go on with the space it began with, {space.name} has changed since {folder.name} began "
            f"({folder / SEARCH} holds its text): put it back, or {again}"
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
