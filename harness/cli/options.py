"""Options that commands share, and the checks of what was given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., Any])
Preset = Annotated[str, typer.Argument(help="What to train: a preset, for example digits_css, or a config file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Set a config value: schedule.steps=200, data.classes=sky,road. Repeatable."
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the folder below --storage and in MLflow; the next free one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run of this --name.")]
Address = Annotated[str, typer.Option(help="Where Ray runs: local (started here), auto, or HOST:PORT.")]
Storage = Annotated[Path, typer.Option(help="Folder for searches, checkpoints and results; all nodes must see it.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow's store or server; default: mlflow.db in this folder."),
]
MlflowExperiment = Annotated[
    str,
    typer.Option(
        "--experiment",
        envvar="MLFLOW_EXPERIMENT_NAME",
        help="MLflow's experiment. A run that goes on stays in its own.",
    ),
]
Register = Annotated[
    bool, typer.Option("--register", help="Make the best teacher MLflow's model s4-NAME, alias champion.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything for people on stderr.")]

GIVEN = ("COMMANDLINE", "ENVIRONMENT")


def given_options(context: typer.Context) -> set[str]:
    """Return the options that were given, on the command line or by the environment; the others have their defaults."""
    sources = {key: context.get_parameter_source(key) for key in context.params}
    return {key for key, source in sources.items() if source is not None and source.name in GIVEN}


def options_of(
    model: type[BaseModel], leave_out: Sequence[str] = (), only: Mapping[str, str] | None = None
) -> Callable[[Command], Command]:
    """Return a decorator: the parameter `options` of a command becomes an option for each field of a model.

    Names, types, bounds, help and metavars are the fields'. The command receives a dictionary of those that were given.
    Fields to `leave_out` are no options; `only` names the only ones that are, with their help.
    """
    names = [name for name in only or model.model_fields if name not in leave_out]
    parameters = [_option(name, model.model_fields[name], (only or {}).get(name)) for name in names]

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        signature = inspect.signature(command)
        own = [
            item.replace(annotation=hints[item.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for item in signature.parameters.values()
        ]
        at = next(index for index, item in enumerate(own) if item.name == "options")
        own[at : at + 1] = parameters

        @functools.wraps(command)
        def with_options(**arguments: Any) -> Any:
            given = given_options(arguments["context"])
            chosen = {name: value for name in names if (value := arguments.pop(name)) is not None and name in given}
            return command(**arguments, options=chosen)

        with_options.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        with_options.__annotations__ = {item.name: item.annotation for item in own}
        return cast("Command", with_options)

    return decorate


def _option(name: str, about: FieldInfo, text: str | None) -> inspect.Parameter:
    """Return a field as a parameter of a command."""
    extra = about.json_schema_extra if isinstance(about.json_schema_extra, dict) else {}
    bound = next((bound for item in about.metadata if (bound := getattr(item, "ge", None)) is not None), None)
    kind, default = about.annotation, about.default
    if kind == tuple[str, ...]:
        kind, default = cast("Any", list[str] | None), None
    flag = [f"--{name.replace('_', '-')}"] if kind is bool and not default else []
    option = typer.Option(
        *flag, min=bound, help=text or about.description, metavar=cast("str | None", extra.get("metavar"))
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
