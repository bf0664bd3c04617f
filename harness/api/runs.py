"""Runs in a storage: what they take, their removal, and the removal of what nobody needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.ledger import LEDGER, read_ledger
from harness.one_driver import HeldError, driver_of, is_new
from harness.run_folder import GANGS, LATEST, SESSIONS, TRIALS, existing_folder, read_run, run_names
from harness.trials import TrialState
from trainers.drafts import draft_name, held, is_draft, left_over
from trainers.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENDED = ("results.json", "ablation.json", "scale.json")
"""Files that a session writes at its end, of each kind of run one."""
LEFT_BY_RAY = (SESSIONS, GANGS)
"""Folders that Ray writes in that of a run; each session begins new ones, and nothing reads the old ones."""


@dataclass(frozen=True)
class StoredRun:
    """A run in a storage; its fields are JSON-able with `asdict`."""

    name: str
    kind: str
    """Of `COMMANDS`; `unreadable` where its `run.yaml` is."""
    state: str
    """`running`, `finished` or `unfinished`."""
    trials: int
    """That began; of an ablation its trainings."""
    bytes: int
    checkpoints: int
    """Bytes of these in checkpoints and evaluations of trials."""
    changed: float
    """When a file of the folder itself was last written, in seconds since 1970."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nobody needs."""

    path: Path
    why: str
    bytes: int


def list_runs(storage: Path | str = "runs") -> list[StoredRun]:
    """Return the runs in a storage, by name."""
    return [stored_run(Path(storage).resolve() / name) for name in run_names(Path(storage))]


def stored_run(folder: Path) -> StoredRun:
    """Return what a run's folder tells, without reading the reports in its ledger."""
    try:
        info = read_run(folder)
        kind, planned = str(info.kind), int(info.request.get("options", {}).get("trials", 1))
    except UsageError:
        kind, planned = "unreadable", 0
    begun, over = trials_of(folder / LEDGER)
    ended = any((folder / name).exists() for name in ENDED)
    finished = ended and not begun - over and (kind != "search" or len(over) >= planned)
    state = "running" if driver_of(folder) else "finished" if finished else "unfinished"
    single = size(folder / LATEST) if (folder / LATEST).exists() else 0
    changed = max(path.stat().st_mtime for path in (folder, *folder.iterdir()) if path.exists())
    return StoredRun(folder.name, kind, state, len(begun), size(folder), size(folder / TRIALS) + single, changed)


def trials_of(ledger: Path) -> tuple[set[int], set[int]]:
    """Return the trials that began and those of them that are over; a line that cannot be read is passed over."""
    begun, over = set[int](), set[int]()
    if not ledger.exists():
        return begun, over
    with ledger.open("rb") as lines:
        for line in lines:
            if line.startswith(b'{"event":"report"'):  # nearly all of it
                continue
            try:
                event = json.loads(line)
                if event["event"] == "start":
                    begun.add(int(event["trial"]))
                elif event["event"] == "end" and TrialState(event["state"]).over:
                    over.add(int(event["trial"]))
            except (ValueError, KeyError, TypeError):
                continue
    return begun, over


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; what vanishes meanwhile has none."""
    found = 0
    for file in (path, *path.rglob("*")):
        try:
            found += file.lstat().st_size if not file.is_dir() else 0
        except OSError:
            continue
    return found


def _folder_of(storage: Path, name: str) -> Path:
    folder = existing_folder(storage, name)
    if name not in run_names(storage) or folder.is_symlink():
        raise UsageError(f"what is deleted must be the folder of a run, {folder} is none: s4 runs list names them")
    return folder


class Removal:
    """Runs that are to be deleted, held so that nobody drives or sends them meanwhile; a context manager."""

    def __init__(self, storage: Path, names: Sequence[str], tracking_uri: str | None) -> None:
        """Look at the runs; `tracking_uri` none: their records in MLflow stay.

        Raises:
            UsageError: there is no such run.
        """
        folders = [_folder_of(storage, name) for name in dict.fromkeys(names)]
        self.runs = [stored_run(folder) for folder in folders]
        self.recorded: dict[str, list[str]] = {}
        """Ids of MLflow's runs by name of the run, children before their parent."""
        self._folders, self._uri, self._held = folders, tracking_uri, ExitStack()
        self._client: MlflowClient | None = None

    def __enter__(self) -> Removal:
        """Hold all of them.

        Raises:
            UsageError: one is in progress, or MLflow cannot be asked; nothing is held or deleted then.
        """
        from harness.doctor import unattended

        with ExitStack() as held_now:
            for folder in self._folders:
                try:
                    held_now.enter_context(unattended(folder))
                except HeldError as error:
                    raise UsageError(
                        f"a run must be over to be deleted, {folder.name} is in progress, {error} is at it: wait for "
                        "it, or interrupt it"
                    ) from None
            if self._uri is not None:
                self._ask(self._uri)
            self._held = held_now.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of what is still there."""
        self._held.close()

    def _ask(self, uri: str) -> None:
        from harness.doctor import runs_of
        from harness.tracking.stores import PARENT, asking, open_store, search_id_of

        with asking(uri):
            self._client = open_store(uri)
            for folder in self._folders if self._client is not None else ():
                if search_id_of(folder) is not None:  # by a name alone another run's could be meant
                    found = sorted(runs_of(self._client, folder), key=lambda run: PARENT not in run.data.tags)
                    self.recorded[folder.name] = [run.info.run_id for run in found]

    def delete(self) -> None:
        """Delete records first, then the folders, each by a rename: what is left of a killed deletion is a draft."""
        for folder in self._folders:
            for run_id in self.recorded.get(folder.name, ()):
                assert self._client is not None  # noqa: S101  # it has told what is recorded
                self._client.delete_run(run_id)
            gone = folder.rename(draft_name(folder))
            with held(gone):
                shutil.rmtree(gone)


def delete_runs(
    *names: str, storage: Path | str = "runs", tracking_uri: str | None = None, keep_records: bool = False
) -> list[StoredRun]:
    """Delete runs, with their runs in MLflow unless these are kept, and return what they were.

    Raises:
        UsageError: one is no run or in progress, or MLflow cannot be asked; nothing was deleted.
    """
    from harness.tracking.stores import absolute_uri

    uri = None if keep_records else absolute_uri(tracking_uri)
    with Removal(Path(storage), names, uri) as removal:
        removal.delete()
    return removal.runs


def leftovers(storage: Path | str = "runs", remove: bool = False) -> list[Leftover]:
    """Return what nobody needs in a storage: of deletions and writes that were cut short, of Ray, of trials.

    Runs in progress are passed over, and so are files of trials that are complete or can go on.

    Args:
        remove: whether it is removed; the run that it is of is held meanwhile.
    """
    from harness.doctor import unattended

    place = Path(storage).resolve()
    found = list[Leftover]()
    for draft in left_over(place, deep=False) if place.is_dir() else ():
        found.append(Leftover(draft, "a deletion or a write that was cut short", size(draft)))
        _remove(draft, remove)
    for folder in _folders(place):
        if driver_of(folder) is not None:
            continue
        try:
            with unattended(folder) if remove else nullcontext():  # a look writes nothing, not even a lock
                for path, why in [*_left_in(folder)]:
                    found.append(Leftover(path, why, size(path)))
                    _remove(path, remove)
        except (HeldError, UsageError):  # in progress; a ledger that cannot be read names nothing
            continue
    return found


def _remove(path: Path, remove: bool) -> None:
    if remove:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _folders(place: Path) -> list[Path]:
    """Return the folders of runs, and those that killed drivers left before a run began; no other program's."""
    known = set(run_names(place))
    found = sorted(path for path in place.glob("*") if path.is_dir() and not path.is_symlink() and not is_draft(path))
    return [path for path in found if path.name in known or _never_began(path)]


def _never_began(folder: Path) -> bool:
    """Return whether a folder holds nothing but what a killed driver left: its lock, or drafts."""
    return any(folder.iterdir()) and is_new(folder)


def _left_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what nobody needs in the folder of a run that is held, and why."""
    if is_new(folder):
        yield folder, "a run that never began"
        return
    yield from ((path, "a write that was cut short") for path in left_over(folder))
    yield from ((folder / name, "what Ray wrote") for name in LEFT_BY_RAY if (folder / name).exists())
    if not (folder / LEDGER).exists():
        return
    states = {number: str(trial.state) for number, trial in read_ledger(folder / LEDGER).trials.items()}
    for path in sorted((folder / TRIALS).glob("[0-9]*")):
        state = states.get(int(path.name)) if path.name.isdigit() else "COMPLETE"
        if state in (None, "PRUNED", "FAIL"):
            yield path, f"of a trial that is {state}" if state else "of a trial that no record names"
