"""Options that commands share, and the checks of what was given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.cli.help import RECORDS, RESOURCES, WHAT
from harness.run_folder import run_names
from harness.tuning.config import WORKERS, SearchConfig
from trainers.presets import PRESETS

Command = TypeVar("Command", bound=Callable[..., Any])
Preset = Annotated[
    str,
    typer.Argument(metavar="PRESET", help="A preset, or a config file.", autocompletion=lambda: [*PRESETS]),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", rich_help_panel=WHAT,
        help="Set a config value: schedule.steps=200, data.classes=sky,road. Repeatable.",
    ),
]  # fmt: skip
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=WHAT,
        help="Train the preset as supervised, mean_teacher, cutmix, contrastive, css_cross, css_mix, "
        "css_mix_released, reco, prcl, fixmatch, unimatch, unimatch_v2, pixcon, u2pl, cps, cps_cutmix, adversarial or "
        "unimatch_css.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Of the folder below --storage and in MLflow; default: the next free one.",
        rich_help_panel=RECORDS,
    ),
]  # fmt: skip
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run of this --name.", rich_help_panel=RECORDS)]
Workers = Annotated[
    int, typer.Option(*WORKERS, metavar="N", min=1, help="Processes that train together.", rich_help_panel=RESOURCES)
]
CpusPerWorker = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help=SearchConfig.model_fields["cpus_per_worker"].description, rich_help_panel=RESOURCES
    ),
]
Gangs = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Trainings that run at once; default: what fits.", rich_help_panel=RESOURCES),
]
GangsPerGpu = Annotated[
    str,
    typer.Option(
        metavar="N", help=SearchConfig.model_fields["gangs_per_gpu"].description, rich_help_panel=RESOURCES
    ),
]  # fmt: skip
Address = Annotated[
    str,
    typer.Option(metavar="WHERE", help="Of Ray: local (started here), auto, or HOST:PORT.", rich_help_panel=RESOURCES),
]
Storage = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER", help="Of all runs, their checkpoints and results; every node must see it.",
        rich_help_panel=RECORDS,
    ),
]  # fmt: skip
TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI", envvar="MLFLOW_TRACKING_URI", show_envvar=False, rich_help_panel=RECORDS,
        help="MLflow's store or server; default: $MLFLOW_TRACKING_URI, or mlflow.db in this folder.",
    ),
]  # fmt: skip
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON object on stdout; what is for people on stderr.", rich_help_panel=RECORDS),
]
MlflowExperiment = Annotated[
    str,
    typer.Option(
        "--experiment", metavar="NAME", envvar="MLFLOW_EXPERIMENT_NAME", show_envvar=False, rich_help_panel=RECORDS,
        help="MLflow's, of a new run; default: $MLFLOW_EXPERIMENT_NAME, or s4.",
    ),
]  # fmt: skip
ProfileStart = Annotated[
    bool,
    typer.Option(
        "--profile-start", help="Show what passed between the command and the first report.", rich_help_panel=RECORDS
    ),
]
Register = Annotated[
    bool,
    typer.Option(
        "--register", help="Make the best teacher MLflow's model s4-NAME, alias champion.", rich_help_panel=RECORDS
    ),
]

GIVEN = ("COMMANDLINE", "ENVIRONMENT")


def runs_here() -> list[str]:
    """Return the names of runs that a shell may complete: those in `runs`."""
    return run_names(Path("runs"))


def given_options(context: typer.Context) -> set[str]:
    """Return the options that were given, on the command line or by the environment; the others have their defaults."""
    sources = {key: context.get_parameter_source(key) for key in context.params}
    return {key for key, source in sources.items() if source is not None and source.name in GIVEN}


def options_of(
    model: type[BaseModel], panels: Mapping[str, Sequence[str]], texts: Mapping[str, str] | None = None
) -> Callable[[Command], Command]:
    """Return a decorator: the parameter `options` of a command becomes an option for each field of a model in `panels`.

    Names, types, bounds, help and metavars are the fields', but for those of which `texts` has another help, without
    a default. The command receives a dictionary of those that were given.
    """
    panel_of = {name: panel for panel, fields in panels.items() for name in fields}
    names = [*panel_of]
    parameters = [_option(name, model.model_fields[name], panel_of[name], (texts or {}).get(name)) for name in names]

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


def _option(name: str, about: FieldInfo, panel: str, text: str | None) -> inspect.Parameter:
    """Return a field as a parameter of a command."""
    extra = about.json_schema_extra if isinstance(about.json_schema_extra, dict) else {}
    bound = next((bound for item in about.metadata if (bound := getattr(item, "ge", None)) is not None), None)
    kind, default = about.annotation, about.default
    if kind == tuple[str, ...]:
        kind, default = cast("Any", list[str] | None), None
    flags = [f"--{name.replace('_', '-')}"] if kind is bool and not default else []
    own, text = text is not None, text or about.description or ""
    if get_origin(kind) is Literal:
        *most, last = map(str, get_args(kind))
        text = f"{text.rstrip('.')}: {', '.join(most)} or {last}."
    option = typer.Option(
        *cast("list[str]", extra.get("flags", flags)), min=bound, help=text, show_default=not own,
        rich_help_panel=panel, metavar=str(extra.get("metavar", "N" if int in (kind, *get_args(kind)) else "NAME")),
    )  # fmt: skip
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
