"""`s4`: the commands, and what their failures become.

Exit codes: 0 done, 1 failed, 2 wrong use (one line, no traceback), 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from harness.cli.ablate import ablate, confirm, noise
from harness.cli.compare import compare
from harness.cli.data import data
from harness.cli.help import Command, Group
from harness.cli.init import init
from harness.cli.lists import config, list_
from harness.cli.models import evaluate, export, predict
from harness.cli.plan import plan
from harness.cli.records import doctor, report, show, sync, ui
from harness.cli.runs import runs
from harness.cli.scale import scale
from harness.cli.space import space
from harness.cli.train import train
from harness.cli.tune import tune
from harness.start import process_began
from harness.trials import GangsBrokenError, UnfinishedError
from search_spaces.parameters import SpaceError
from trainers.errors import UsageError

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="s4",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
SUBJECTS = {
    "Run": (init, train, tune, plan, scale),
    "Compare": (ablate, confirm, noise, compare),
    "Models": (evaluate, predict, export),
    "Records": (list_, show, report, ui, sync, doctor),
    "Data and settings": (config,),
}
for subject, commands in SUBJECTS.items():
    for command in commands:
        app.command(command.__name__.strip("_"), cls=Command, rich_help_panel=subject)(command)
for name, group, subject in (
    ("runs", runs, "Records"), ("space", space, "Data and settings"), ("data", data, "Data and settings"),
):  # fmt: skip
    app.add_typer(group, name=name, rich_help_panel=subject)


@app.callback()
def s4(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda asked: show_versions() if asked else None,
                     help="Show versions and exit."),
    ] = False,
) -> None:  # fmt: skip
    """Search, scale and ablate semi-supervised semantic segmentation. Runs on embedded data as it is.

    Examples:
        s4 train digits_css
        s4 tune --space css_quick --trials 16
        s4 report css_quick-001
    """


def show_versions() -> None:
    """Write the versions of what results depend on, without importing it, and exit."""
    versions = {name: metadata.version(name) for name in ("s4-harness", "torch", "ray", "optuna", "mlflow")}
    versions = {"s4-harness": versions.pop("s4-harness"), "python": platform.python_version(), **versions}
    for name, version in versions.items():
        sys.stdout.write(f"{name} {version}\n")
    raise typer.Exit


def run(arguments: Sequence[str], began: float | None = None) -> int:
    """Run a command line and return its exit code; `began`: when its process did, where that is for this line alone."""
    warnings.formatwarning = _one_line
    try:
        app(args=list(arguments), prog_name="s4", obj=began)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else DONE if exit_.code is None else FAILED
    except GangsBrokenError:  # said why already
        return FAILED
    except (UsageError, SpaceError, UnfinishedError) as error:
        sys.stderr.write(f"s4: {error}\n")
        return FAILED if isinstance(error, UnfinishedError) else WRONG_USE
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            traceback.print_exc()
        else:
            sys.stderr.write(f"s4: failed: {error}\n")
        return FAILED
    except Exception:
        traceback.print_exc()
        return FAILED
    return DONE


def main() -> None:
    """Run the command line of this process, whatever its output goes to."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before we began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
        else:
            stream.reconfigure(errors="replace")  # a terminal may not have every letter
    code = run(sys.argv[1:], process_began())
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"s4: warning: {message}\n"


if __name__ == "__main__":
    main()
