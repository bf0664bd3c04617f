"""`s4 report`: shows the results of a search, a training or an ablation again, and writes its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, Storage, named_folder
from harness.console import Console, open_console
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.reporting.results import Results


def report(
    name: Annotated[str, typer.Argument(help="The name that s4 tune, train or ablate gave or was given.")],
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show the results of a search, a training or an ablation again, and write its report: a page, tables and figures.

    What is still at work, or was killed, is shown as far as it is.
    """
    from harness.reporting.search import report_on

    folder = named_folder(storage, name)
    if not folder.is_dir():
        raise UsageError(unknown_name(storage, name))
    with open_console(as_json) as console:
        told = _tell(folder, console)
        try:
            page = report_on(folder)[0]
        except OSError as error:
            console.say(f"failed: the report cannot be written into {folder}: {error}")
            raise typer.Exit(1) from None
        console.say(f"report: {page}")
        console.result({**told, "report": str(page)})


def _tell(folder: Path, console: Console) -> dict[str, Any]:
    """Write the table of what is in a folder and what it amounts to; return it as JSON-able values."""
    from harness.ablation.request import REQUEST

    if (folder / REQUEST).exists():
        from harness.ablation import results as ablation
        from harness.ablation.table import lines, to_table
        from harness.reporting.ablation.record import read_ablation

        found = read_ablation(folder)
        console.table(to_table(found))
        for line in lines(found):
            console.say(line)
        return ablation.to_json(found)
    from harness.reporting.records import read_or_rebuild
    from harness.reporting.results import to_json

    results = read_or_rebuild(folder)
    show(console, results)
    return to_json(results)


def show(console: Console, results: Results) -> None:
    """Write the table and what it amounts to."""
    from harness.reporting.results import summary, to_table

    console.table(to_table(results))
    for line in summary(results):
        console.say(line)


def unknown_name(storage: Path, name: str) -> str:
    """Return the refusal of a name that nothing has, with the nearest that there is."""
    import difflib

    known = sorted(path.parent.name for file in ("results.json", "ablation.yaml") for path in storage.glob(f"*/{file}"))
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known[:5])}" if known else "run s4 tune first"
    return f"a name must be that of a search, training or ablation in {storage.resolve()}, got {name!r}: {hint}"
