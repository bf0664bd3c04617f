"""`s4 doctor`: says what disagrees about a search, and mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, Storage, TrackingUri, named_folder
from harness.console import open_console
from harness.tables import Column, Table

if TYPE_CHECKING:
    from harness.search.doctor import Finding


def doctor(
    name: Annotated[str, typer.Argument(help="The name of a search.")],
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Compare what the ledger, Optuna, MLflow and the checkpoints say of a search; exit code 1 if they disagree."""
    from harness.cli.conduct import tracking_uri_of
    from harness.event_log import LEDGER, read_ledger
    from harness.run_folder import read_run, sole_driver
    from harness.search.doctor import examine
    from harness.search.objectives import parse_objectives

    folder, uri = named_folder(storage, name), tracking_uri_of(tracking_uri)
    info = read_run(folder, "search")
    objective = parse_objectives(info.request["options"].get("objective") or [info.metric])[0]
    with open_console(as_json) as console, sole_driver(folder):
        findings = examine(folder, name, objective, uri)
        mended: list[str] = []
        if fix:
            for finding in findings:
                if finding.mend is not None:
                    finding.mend()
            left = examine(folder, name, objective, uri)
            still = {(finding.trial, finding.what) for finding in left}
            mended = [_line(finding) for finding in findings if (finding.trial, finding.what) not in still]
            findings = left
        for line in mended:
            console.say(f"mended: {line}")
        if findings:
            console.table(to_table(findings))
        trials = len(read_ledger(folder / LEDGER).trials)
        mendable = sum(finding.mend is not None for finding in findings)
        if not findings:
            console.say(f"{name}: ledger, Optuna, MLflow and checkpoints agree on {trials} trials")
        elif mendable and not fix:
            console.say(f"{mendable} of {len(findings)} can be mended: s4 doctor {name} --fix")
        console.result({
            "name": name,
            "trials": trials,
            "mended": mended,
            "findings": [{"trial": found.trial, "what": found.what, "mendable": found.mend is not None}
                         for found in findings],
        })  # fmt: skip
    if findings:
        raise typer.Exit(1)


def to_table(findings: list[Finding]) -> Table:
    """Return the findings as a table."""
    columns = [Column("trial", align="right"), Column("what disagrees"), Column("can be mended")]
    rows = [(finding.trial, finding.what, finding.mend is not None) for finding in findings]
    return Table("findings", "", columns, rows)


def _line(finding: Finding) -> str:
    return finding.what if finding.trial is None else f"trial {finding.trial}: {finding.what}"
