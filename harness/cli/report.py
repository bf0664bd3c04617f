"""`s4 report`: shows the results of a run again, and writes its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, Storage
from harness.console import open_console


def report(
    name: Annotated[str, typer.Argument(help="The name that s4 tune, train, ablate or confirm gave or was given.")],
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show the results of a search, a training or an ablation again, and write its report: a page, tables and figures.

    What is still at work, or was killed, is shown as far as it is.
    """
    with open_console(as_json) as console:
        from harness.session import report_again

        report_again(storage, name, console)
