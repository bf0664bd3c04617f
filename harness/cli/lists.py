"""`s4 config` and `s4 list`: what can be set, and what there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.cli.help import WHAT
from harness.cli.options import Json, Preset, Settings, Storage
from harness.console import open_console
from harness.experiment import CssExperiment
from harness.run_folder import kind_of, run_names
from harness.space_file import choices_of
from harness.tables import Column, Table
from trainers.errors import UsageError
from trainers.overrides import parse_settings

BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "multiple_of": "multiple of {}"}
Kind = Literal["runs", "presets", "methods", "spaces", "plans"]


class Setting(NamedTuple):
    """A value of a config."""

    path: str
    value: Any
    """JSON-able."""
    range: str
    """What it may be, as far as one field says."""
    meaning: str


def config(
    preset: Preset = "digits_css",
    search: Annotated[
        str | None, typer.Option(metavar="WORD", help="Show what has this in path or meaning.", rich_help_panel=WHAT)
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """List every path that --set and a space may name, with its value, its range and its meaning.

    Examples:
        s4 config digits_css
        s4 config --search temperature
    """
    experiment = CssExperiment.of(preset, parse_settings(settings or []))
    rows = [row for row in settings_of(experiment.base) if _matches(row, search)]
    if not rows:
        raise UsageError(f"--search must be part of a path or of its meaning, got {search!r}: try a shorter word")
    with open_console(as_json) as console:
        for row in rows:
            console.say(f"{row.path} = {row.value}" + (f"    ({row.range})" if row.range else ""))
            console.say(f"    {row.meaning}")
        console.result({row.path: row._asdict() for row in rows})


def list_(
    kind: Annotated[
        Kind | None,
        typer.Argument(metavar="KIND", help="runs, presets, methods, spaces or plans; default: all of it."),
    ] = None,
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs, presets, methods, search spaces and ablation plans.

    Examples:
        s4 list
        s4 list spaces
    """
    from search_spaces import list_spaces
    from search_spaces.ablation import list_plans
    from trainers.methods import METHODS
    from trainers.presets import PRESETS

    names: dict[str, list[str]] = {
        "runs": run_names(storage), "presets": list(PRESETS), "methods": list(METHODS), "spaces": list_spaces(),
        "plans": list_plans(),
    }  # fmt: skip
    chosen = {name: values for name, values in names.items() if kind in (None, name)}
    with open_console(as_json) as console:
        for name, values in chosen.items():
            if name == "runs" and values:
                kinds = [str(kind_of(storage / run)) for run in values]
                columns = [Column("run"), Column("kind")]
                console.table(Table("runs", f"runs in {storage}", columns, list(zip(values, kinds, strict=True))))
            else:
                console.say(f"{name}: {', '.join(values) or f'none in {storage}'}")
        console.result(chosen)


def settings_of(section: BaseModel, prefix: str = "") -> Iterator[Setting]:
    """Yield the values of a config by dotted path."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from settings_of(value, f"{prefix}{name}.")
        else:
            meaning = " ".join((field.description or "").split())
            yield Setting(f"{prefix}{name}", section.model_dump(mode="json")[name], _range(field), meaning)


def _range(field: FieldInfo) -> str:
    """Return the choices of a field, or the bounds of its numbers."""
    choices = [repr(choice) for choice in choices_of(field.annotation)]
    bounds = [text.format(getattr(limit, name)) for limit in field.metadata for name, text in BOUNDS.items()
              if getattr(limit, name, None) is not None]  # fmt: skip
    return ", ".join(bounds) or (" | ".join(choices) if len(choices) > 1 else "")


def _matches(row: Setting, search: str | None) -> bool:
    return search is None or search.lower() in f"{row.path} {row.meaning}".lower()
