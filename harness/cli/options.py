"""Options that commands share, and the checks of what was given."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from harness.trials import Value
    from search_spaces import Space
    from trainers.config import TrainConfig

Preset = Annotated[str, typer.Argument(help="What to train: a preset, for example digits_css or camvid_css.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a config value, for example schedule.steps=200. Repeatable."),
]
Name = Annotated[str | None, typer.Option(help="Name of the folder below --storage and in MLflow; the next free one.")]
Address = Annotated[str, typer.Option(help="Where Ray runs: local (started here), auto, or HOST:PORT.")]
Storage = Annotated[Path, typer.Option(help="Folder for searches, checkpoints and results; all nodes must see it.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow's store or server; default: mlflow.db in this folder."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything for people on stderr.")]

GIVEN = ("COMMANDLINE", "ENVIRONMENT")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def given_options(context: typer.Context) -> set[str]:
    """Return the options that were given, on the command line or by the environment; the others have their defaults."""
    sources = {key: context.get_parameter_source(key) for key in context.params}
    return {key for key, source in sources.items() if source is not None and source.name in GIVEN}


def base_config(preset: str, settings: dict[str, Value]) -> TrainConfig:
    """Return the preset's config with the settings.

    Raises:
        ConfigError: there is no such preset or path, or a value is out of range.
    """
    from trainers.overrides import apply_overrides
    from trainers.presets import load_preset

    return apply_overrides(load_preset(preset), settings)


def check_space(space: Space, config: TrainConfig, settings: dict[str, Value]) -> None:
    """Make sure that the config takes everything that the space can draw.

    Raises:
        UsageError: a path does not exist, is also set by hand, or a value is refused.
    """
    import warnings

    from trainers.overrides import apply_overrides

    both = sorted(settings.keys() & {*space.paths, *space.fixed})
    if both:
        how = "searched" if both[0] in space.paths else "fixed"
        raise UsageError(
            f"--set must leave alone what the space {space.name} decides, {both[0]} is {how} there: "
            "remove the setting or take another space"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for params in (space.baseline_params, *space.edges()):
            try:
                apply_overrides(config, space.overrides(params))
            except ConfigError as error:
                raise ConfigError(f"space {space.name} must fit the config: {error}") from None


def free_folder(storage: Path, name: str | None, stem: str) -> Path:
    """Return the absolute folder for something new: of this name, or of the first free `stem-001`, `stem-002`, ...

    Raises:
        UsageError: the name is not one, or it is taken.
    """
    storage = storage.resolve()
    if name is None:
        number = 1
        while (storage / f"{stem}-{number:03d}").exists():
            number += 1
        return storage / f"{stem}-{number:03d}"
    folder = named_folder(storage, name)
    if folder.exists():
        raise UsageError(
            f"a name must be free, {folder} exists: take another --name, or remove the folder to start again "
            f"(s4 report {name} shows what it holds)"
        )
    return folder


def named_folder(storage: Path, name: str) -> Path:
    """Return the absolute folder of this name.

    Raises:
        UsageError: it is not a name.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"a name must be letters, digits, '.', '_' and '-', up to 64, the first a letter or digit; got {name!r}: "
            "choose another"
        )
    return storage.resolve() / name


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
