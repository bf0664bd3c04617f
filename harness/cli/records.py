"""`s4 show`, `s4 report`, `s4 sync`, `s4 doctor`, `s4 ui`: records shown, sent and checked."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.help import RECORDS, WHAT
from harness.cli.options import Json, Storage, TrackingUri, runs_here
from harness.console import open_console
from harness.formats import counted
from harness.run_folder import existing_folder, named_folder
from harness.tracking.stores import absolute_uri
from trainers.errors import UsageError

RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="By the name that s4 gave or was given.",
        autocompletion=runs_here,
    ),
]  # fmt: skip


def report(
    name: RunName,
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show the results of a run of any kind again, and write its report: a page, tables and figures.

    What is still at work, or was killed, is shown as far as it is.

    Examples:
        s4 report css_quick-001
        s4 report css_quick-001 --json > results.json
    """
    with open_console(as_json) as console:
        from harness.session import report_again

        report_again(storage, name, console)


def show(
    name: RunName,
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """Say what a run is and how far it is: its command, settings, data, counts, best trial and files.

    It is read from its folder alone, whether it is at work, was killed or is finished, and nothing is written.

    Examples:
        s4 show css_quick-001
        s4 show css_quick-001 --json
    """
    with open_console(as_json) as console:
        from harness.reporting.shown import lines, read_shown

        shown = read_shown(existing_folder(storage, name))
        for line in lines(shown):
            console.say(line)
        console.result(asdict(shown))


def sync(
    name: RunName,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
) -> None:
    """Send what a tracking server that was down did not receive, and end what a killed driver left RUNNING there.

    Sending twice changes nothing.

    Examples:
        s4 sync css_quick-001
        s4 sync css_quick-001 --tracking-uri http://tracking:5000
    """
    from harness.session import send_records

    delivery = send_records(named_folder(storage, name), absolute_uri(tracking_uri))
    sys.stdout.write(f"{counted(delivery.applied, 'operation')} sent, {delivery.pending} left\n")
    if delivery.note:
        sys.stderr.write(f"s4: {delivery.note}\n")
        raise typer.Exit(1)


def doctor(
    name: Annotated[str | None, typer.Argument(metavar="RUN", help="The name of a run of any kind.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every run of the storage.", rich_help_panel=WHAT)] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.", rich_help_panel=WHAT)] = False,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Compare what run.yaml, ledger, Optuna, MLflow and files say of a run; exit code 1 if they disagree.

    A run that is in progress is not touched.

    Examples:
        s4 doctor --all
        s4 doctor css_quick-001 --fix
    """
    if (name is None) != every:
        given = "none" if name is None else "both"
        raise UsageError(f"s4 doctor must be given the name of a run or --all, got {given}: s4 doctor --all checks all")
    from harness.doctor import check_and_repair

    with open_console(as_json) as console:
        agree = check_and_repair(storage, name, absolute_uri(tracking_uri), fix, console)
    if not agree:
        raise typer.Exit(1)


def ui(
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A search, training or ablation, to get the links of.")
    ] = None,
    tracking_uri: TrackingUri = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="To listen on.", rich_help_panel=RECORDS)
    ] = 5000,
) -> None:
    """Serve the records with MLflow's own pages, on this machine only, until Ctrl-C.

    Examples:
        s4 ui
        s4 ui css_quick-001 --port 5001
    """
    from harness.tracking.pages import serve

    if name is not None:
        named_folder(Path(), name)  # refuses what is no name
    serve(absolute_uri(tracking_uri), name, port)
