"""`s4 show`, `s4 report`, `s4 sync`, `s4 doctor`, `s4 ui`: records shown, sent and checked."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, Storage, TrackingUri
from harness.console import open_console
from harness.run_folder import existing_folder, named_folder
from harness.tracking.stores import absolute_uri
from trainers.errors import UsageError


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


def show(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The name of a run of any kind.")],
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """Say what a run is and how far it is: its command, settings, data, counts, best trial and files.

    It is read from its folder alone, whether it is at work, was killed or is finished, and nothing is written.
    """
    with open_console(as_json) as console:
        from harness.reporting.shown import lines, read_shown

        shown = read_shown(existing_folder(storage, name))
        for line in lines(shown):
            console.say(line)
        console.result(asdict(shown))


def sync(
    name: Annotated[str, typer.Argument(help="The name that s4 tune, train, ablate or confirm gave or was given.")],
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
) -> None:
    """Send what a tracking server that was down did not receive, and end what a killed driver left RUNNING there.

    Sending twice changes nothing.
    """
    from harness.session import send_records

    delivery = send_records(named_folder(storage, name), absolute_uri(tracking_uri))
    sys.stdout.write(f"{delivery.applied} operations sent, {delivery.pending} left\n")
    if delivery.note:
        sys.stderr.write(f"s4: {delivery.note}\n")
        raise typer.Exit(1)


def doctor(
    name: Annotated[str | None, typer.Argument(help="The name of a run of any kind.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every run of the storage.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Compare what run.yaml, ledger, Optuna, MLflow and files say of a run; exit code 1 if they disagree.

    A run that is in progress is not touched.
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
    name: Annotated[str | None, typer.Argument(help="A search, training or ablation, to get the links of.")] = None,
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Serve the records with MLflow's own pages, on this machine only, until Ctrl-C."""
    from harness.tracking.pages import serve

    if name is not None:
        named_folder(Path(), name)  # refuses what is no name
    serve(absolute_uri(tracking_uri), name, port)
