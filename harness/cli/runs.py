"""`s4 runs`: what runs take, their deletion, and the removal of what nobody needs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.help import WHAT, Command, Group
from harness.cli.options import Json, Storage, TrackingUri, runs_here
from harness.console import open_console
from harness.formats import counted, duration
from harness.tables import Cell, Column, Table
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.api.runs import StoredRun

runs = typer.Typer(cls=Group, no_args_is_help=True)
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.", rich_help_panel=WHAT)
]


@runs.callback()
def group() -> None:
    """See what runs take, delete them with their records, and remove what nobody needs.

    Examples:
        s4 runs list
        s4 runs delete first second --dry-run
    """


@runs.command("list", cls=Command)
def list_(storage: Storage = Path("runs"), as_json: Json = False) -> None:
    """List runs: kind, state, trials that began, size with that of checkpoints, and how long nothing was written.

    Examples:
        s4 runs list
        s4 runs list --json
    """
    from harness.api.runs import list_runs

    found = list_runs(storage)
    with open_console(as_json) as console:
        if found:
            console.table(table_of(found))
        console.say(f"{counted(len(found), 'run')} in {storage}, {megabytes(sum(run.bytes for run in found))}")
        console.result({"storage": str(storage.resolve()), "runs": [asdict(run) for run in found]})


@runs.command(cls=Command)
def delete(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Names of runs.", autocompletion=runs_here)
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.", rich_help_panel=WHAT)] = False,
    dry_run: DryRun = False,
    keep_records: Annotated[
        bool, typer.Option("--keep-records", help="Leave their runs in MLflow.", rich_help_panel=WHAT)
    ] = False,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Delete runs: their folders with all checkpoints, and their runs in MLflow. A run in progress is refused.

    MLflow keeps deleted runs and their files in its trash until `mlflow gc`; registered models stay registered.

    Examples:
        s4 runs delete first
        s4 runs delete first second --yes
    """
    from harness.api.runs import Removal
    from harness.tracking.stores import absolute_uri

    if not yes and not dry_run and not sys.stdin.isatty():
        raise UsageError("a deletion must be confirmed, and nobody can be asked here: give --yes, or --dry-run to look")
    uri = None if keep_records else absolute_uri(tracking_uri)
    with open_console(as_json) as console, Removal(storage, names, uri) as removal:
        console.table(table_of(removal.runs))
        recorded = sum(map(len, removal.recorded.values()))
        what = f"{counted(len(removal.runs), 'run')}, {megabytes(sum(run.bytes for run in removal.runs))}"
        what += f", and {counted(recorded, 'run')} in MLflow"
        if dry_run:
            console.say(f"would delete {what}")
        elif yes or typer.confirm(f"delete {what}?", err=as_json):
            removal.delete()
            console.say(f"deleted {what}")
        else:
            console.say("nothing was deleted")
            raise typer.Exit(1)
        console.result({
            "runs": [asdict(run) for run in removal.runs], "in_mlflow": removal.recorded, "deleted": not dry_run,
        })  # fmt: skip


@runs.command(cls=Command)
def gc(dry_run: DryRun = False, storage: Storage = Path("runs"), as_json: Json = False) -> None:
    """Remove what writes and deletions that were cut short left, checkpoints that no record names, and files of Ray.

    Complete trials and those that can go on keep theirs. Runs in progress are not touched.

    Examples:
        s4 runs gc --dry-run
        s4 runs gc
    """
    from harness.api.runs import leftovers

    found = leftovers(storage, remove=not dry_run)
    rows: list[list[Cell]] = [
        [str(item.path.relative_to(storage.resolve())), item.why, item.bytes / 1e6] for item in found
    ]
    columns = [Column("path", weight=1), Column("what it is", weight=2, prose=True), Column("MB", form=".1f", weight=2)]
    with open_console(as_json) as console:
        if rows:
            console.table(Table("leftovers", "", columns, rows))
        done = "would remove" if dry_run else "removed"
        console.say(f"{done} {counted(len(found), 'leftover')}, {megabytes(sum(item.bytes for item in found))}")
        leftover = [{"path": str(item.path), "why": item.why, "bytes": item.bytes} for item in found]
        console.result({"removed": not dry_run, "leftovers": leftover})


def table_of(found: Sequence[StoredRun]) -> Table:
    """Return runs as a table."""
    columns = [
        Column("run", weight=3), Column("kind", weight=1), Column("state", weight=2), Column("trials"),
        Column("MB", form=".1f", weight=2), Column("of it checkpoints", form=".1f"), Column("unchanged for", weight=1),
    ]  # fmt: skip
    rows: list[list[Cell]] = [[run.name, run.kind, run.state, run.trials, run.bytes / 1e6, run.checkpoints / 1e6,
             duration(max(0.0, time.time() - run.changed))] for run in found]  # fmt: skip
    return Table("runs", "", columns, rows)


def megabytes(size: float) -> str:
    """Return a size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
