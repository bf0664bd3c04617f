"""`s4 report`: shows the results of a search or a training again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, Storage, named_folder
from harness.cli.terminal import Terminal, terminal
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.report import Results


def report(
    name: Annotated[str, typer.Argument(help="The name that s4 tune or s4 train gave or was given.")],
    storage: Storage = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show the results of a search or a training again."""
    from harness.report import to_json

    folder = named_folder(storage, name)
    if not folder.is_dir():
        raise UsageError(unknown_name(storage, name))
    results = read_or_rebuild(folder)
    with terminal(as_json) as speak:
        show(speak, results)
        speak.result(to_json(results))


def read_or_rebuild(folder: Path) -> Results:
    """Return the results of a search or a training; of a search whose driver is at work or was killed, those so far.

    Raises:
        UsageError: there are none.
    """
    from harness.report import FILES, Collector, Results, read_results
    from harness.search.ledger import LEDGER, read_ledger
    from harness.search.manifest import SEARCH, read_manifest

    written, ledger = folder / FILES[0], folder / LEDGER
    behind = ledger.exists() and (not written.exists() or written.stat().st_mtime < ledger.stat().st_mtime)
    if not behind or not (folder / SEARCH).exists():
        return read_results(folder)
    manifest = read_manifest(folder)
    history = read_ledger(ledger, manifest.objectives[0].maximise)
    return Results(
        name=folder.name, kind="search", preset=manifest.preset, space=manifest.space.name, metric=manifest.metric,
        horizon=manifest.config.schedule.steps, elapsed_s=history.elapsed_s, tracking_uri="",
        paths=manifest.space.paths,
        rows=Collector(history.trials.values()).rows(manifest.space.paths, manifest.objectives),
        objectives=[str(objective) for objective in manifest.objectives],
    )  # fmt: skip


def show(speak: Terminal, results: Results) -> None:
    """Write the table and what it amounts to."""
    from harness.report import summary, to_table

    speak.console.print(to_table(results))
    for line in summary(results):
        speak.say(line)


def unknown_name(storage: Path, name: str) -> str:
    """Return the refusal of a name that nothing has, with the nearest that there is."""
    import difflib

    known = sorted(path.parent.name for path in storage.glob("*/results.json"))
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known[:5])}" if known else "run s4 tune first"
    return f"a name must be that of a search or training in {storage.resolve()}, got {name!r}: {hint}"
