"""The folder of a run, `STORAGE/NAME`: its one `run.yaml`, its paths and its name.

Light to import: thin processes read the names of checkpoints here.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from trainers.drafts import draft_of
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.trials import Experiment

QUICK: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""YAML's safe loader, ten times as quick where PyYAML was built with libyaml."""
Kind = Literal["search", "train", "ablation", "confirm", "scale"]
COMMANDS: Mapping[Kind, tuple[str, str]] = {
    "search": ("a search", "s4 tune"),
    "train": ("a training", "s4 train"),
    "ablation": ("an ablation", "s4 ablate"),
    "confirm": ("a confirmation", "s4 confirm"),
    "scale": ("a scaling measurement", "s4 scale"),
}
"""Kinds of runs: their names with the article, and the commands that begin them."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

RUN = "run.yaml"
"""What a run began with."""
VERSION = 2
TRIALS, GANGS, SESSIONS, SPLITS, EVALUATION = "trials", "gangs", "sessions", "splits", "evaluation"
"""Folders in that of a run: checkpoints by trial, what Ray Train and Ray Tune write, lists of images, evaluations."""
CONFIG, CONFUSION, OVERLAYS = "config.yaml", "confusion.png", "overlays.png"
"""Files in the folder of a trial that was evaluated: its whole config, the confusion matrix of the validation images,
and the same images for every trial with truth, prediction, pseudo-labels of both spaces, confidence and similarity."""
BEST = "best.yaml"
"""The best settings of a search, as a config file."""
PICTURE = "predictions.png"
"""Image, truth, prediction and pseudo-labels; a single training leaves one in its folder."""
REPRESENTATIONS = "representations.png"
"""Pixels and prototypes in the representation space at some reports; beside each of these pictures, where known."""
LATEST, PREVIOUS, NEXT = "latest.pt", "previous.pt", "next.pt"
"""A trial's checkpoint, the one before it, for the case that the newer cannot be read, and the one being written."""
APART = "step-*.pt"
"""States that a scheduler had saved, to come back to or to clone."""


@dataclass(frozen=True)
class RunInfo:
    """What a run began with: written before it starts, read to go on with it, to report and to confirm it."""

    kind: Kind
    preset: str
    """Name of the experiment."""
    settings: Mapping[str, Any]
    """What was set by hand, by dotted config path."""
    data_digest: str
    """Hash of the data that the base config trains and is judged on; "": it reads none that is known."""
    metric: str
    """Name of the metric that is sought or judged by."""
    horizon: int
    """Optimizer steps of a full training."""
    report_every: int
    """Optimizer steps between two reports."""
    config_hash: str
    config: Mapping[str, Any]
    """The resolved base config."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What was asked of this kind of run: the options and the space of a search, the runs of an ablation."""
    revision: str = ""
    """Commit of this package's repository, with `-dirty` where it had changes; "" outside one."""
    trainer: str = "css"
    """`css` for this project's trainer, whose checkpoints can be evaluated; else the class of the experiment."""

    @classmethod
    def of(
        cls, kind: Kind, experiment: Experiment, metric: str, request: Mapping[str, Any], digest: str | None = None
    ) -> RunInfo:
        """Return what a run of an experiment begins with; the data are read for their hash, unless one is given.

        Raises:
            UsageError: the data cannot be read.
        """
        config, config_hash = experiment.resolve({})
        return cls(
            kind, experiment.name, dict(experiment.settings),
            experiment.data_digest if digest is None else digest, metric, experiment.horizon,
            experiment.report_every, config_hash, config, request, git_sha() or "", experiment.trainer,
        )  # fmt: skip


def write_run(folder: Path, info: RunInfo) -> None:
    """Write `run.yaml`, whole or not at all."""
    data = {"version": VERSION, **asdict(info)}
    write_whole(folder / RUN, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def kind_of(folder: Path) -> Kind | None:
    """Return the kind of the run that began in a folder; none where none did."""
    if (folder / RUN).exists():
        return read_run(folder).kind
    return next((kind for file, kind in VERSION_1.items() if (folder / file).exists()), None)


def read_run(folder: Path, kind: Kind | None = None) -> RunInfo:
    """Return what a run of this kind, none: of any, began with; also one that version 0.1 began.

    Raises:
        UsageError: nothing began there, it is of another kind, or this version cannot read it.
    """
    what, command = COMMANDS[kind] if kind else ("a run", "s4 tune")
    path = folder / RUN
    if not path.exists():
        path = next((folder / file for file in VERSION_1 if (folder / file).exists()), path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=QUICK)  # noqa: S506  # a SafeLoader
        if path.name in VERSION_1:
            info = _from_version_1(VERSION_1[path.name], data)
        elif data["version"] != VERSION:
            raise ValueError(f"it has version {data['version']}, and this s4 reads {VERSION}")
        else:
            info = RunInfo(**{item.name: data[item.name] for item in fields(RunInfo)})
    except FileNotFoundError:
        raise UsageError(
            f"{what} must have written {path}, there is none: check --name and --storage ({command} begins {what})"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} must be what s4 wrote, it is not: {' '.join(str(error).split())}") from None
    if kind is not None and info.kind != kind:
        raise UsageError(f"{folder.name} must be {what}, it is {COMMANDS[info.kind][0]}: check --name and --storage")
    return info


VERSION_1: Mapping[str, Kind] = {
    "search.yaml": "search", "train.yaml": "train", "ablation.yaml": "ablation", "request.json": "confirm",
}  # fmt: skip
"""Files of version 0.1, which had one a kind."""


def _from_version_1(kind: Kind, data: Mapping[str, Any]) -> RunInfo:
    if kind == "confirm":
        raise ValueError(
            "a confirmation of version 0.1 cannot go on or be shown: confirm the search again by a new --name"
        )
    schedule = data["config"]["schedule"]
    common = {"version", "preset", "settings", "data_digest", "metric", "config_hash", "config"}
    request = {key: value for key, value in data.items() if key not in common}
    if kind == "search":
        request = {"options": data["plan"], "space": data["space"]}
    return RunInfo(
        kind, data["preset"], data["settings"], data["data_digest"], data.get("metric", "dev/miou"), schedule["steps"],
        schedule["evaluate_every"], data["config_hash"], data["config"], request,
    )  # fmt: skip


def check_same(before: RunInfo, now: RunInfo, otherwise: str) -> None:
    """Refuse to go on with another config or other data than at the beginning; `otherwise` says what else to do.

    Raises:
        UsageError: what differs.
    """
    what = COMMANDS[before.kind][0]
    if now.config_hash != before.config_hash:
        differing = ", ".join(_differences(before.config, now.config))
        raise UsageError(
            f"{what} must go on with the config it began with, it differs now in {differing}: put that back, or "
            f"{otherwise}"
        )
    if now.data_digest != before.data_digest:
        raise UsageError(
            f"{what} must go on with the data it began with, the splits had digest {before.data_digest} and now "
            f"have {now.data_digest}: put the files back, or {otherwise}"
        )


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Return the dotted paths at which two nested dictionaries differ, with both values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        lines: list[str] = []
        for key in dict.fromkeys([*before, *now]):
            lines += _differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
        return lines
    return [] if before == now else [f"{path} ({before} then, {now} now)"]


def run_names(storage: Path) -> list[str]:
    """Return the names of the runs in a storage folder, in alphabetical order."""
    return sorted({path.parent.name for file in (RUN, *VERSION_1) for path in storage.glob(f"*/{file}")})


def existing_folder(storage: Path, name: str) -> Path:
    """Return the absolute folder of a run that began.

    Raises:
        UsageError: there is none of this name; with the nearest that there is.
    """
    folder = named_folder(storage, name)
    if folder.is_dir():
        return folder
    known = run_names(storage)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known[:5])}" if known else "run s4 tune first"
    raise UsageError(
        f"a name must be that of a search, training or ablation in {storage.resolve()}, got {name!r}: {hint}"
    )


def named_folder(storage: Path, name: str) -> Path:
    """Return the absolute folder of this name.

    Raises:
        UsageError: it is not a name, or what lies there cannot be read.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"a name must be letters, digits, '.', '_' and '-', up to 64, the first a letter or digit; got "
            f"{name[:80]!r}: choose another, with --name where it is a file's"
        )
    root = storage.resolve()
    closed = next((path for path in (root, root / name) if os.path.isdir(path) and not os.access(path, READ)), None)
    if closed is not None:
        raise UsageError(f"the folder of a run must be readable, {closed} is not: ask its owner, or give --storage")
    return root / name


READ = os.R_OK | os.X_OK
"""Of a folder: to list it and to open what it holds."""


def check_writable(path: Path, option: str, whole: bool = False) -> None:
    """Refuse a file or folder that cannot be written or made.

    Args:
        path: absolute.
        option: names another place.
        whole: whether what a folder holds must be writable, too: that of another user's run is not.

    Raises:
        UsageError: which path cannot be written.
    """
    there = next(place for place in (path, *path.parents) if os.path.exists(place))
    held = [there, *(there.iterdir() if whole and there == path and os.access(path, READ) else ())]
    blocked = next((place for place in held if not os.access(place, os.W_OK)), None)
    if blocked is None and (there == path or os.path.isdir(there)):
        return
    reason = "is no folder" if blocked is None else "cannot be written"
    raise UsageError(f"{path} must be a place that can be written, {blocked or there} {reason}: give another {option}")


def checkpoint_folder(root: Path, number: int) -> Path:
    """Return where a trial's checkpoints lie, below the search's."""
    return root / f"{number:05d}"


LATE_SPLITS = ("val", "test")
"""Splits that are scored once, when training is over; which of them a config has, `data.late_splits` says."""


def evaluation_file(folder: Path, split: str) -> Path:
    """Return where the confusion matrices of a trial on the images of a split lie, below the trial's folder."""
    return folder / f"{split}.npz"


def apart(folder: Path, step: int) -> Path:
    """Return the name of a state that is saved apart; names sort by step."""
    return folder / APART.replace("*", f"{step:08d}")


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all: a reader sees the old one or the new one."""
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")


def put_aside(path: Path) -> Path:
    """Give a file that cannot be read a name beside it, `NAME.broken-001` or the next free one, and return that."""
    return path.rename(_first_free(path.parent, f"{path.name}.broken-"))


def fresh_folder(folder: Path) -> Path:
    """Make and return a numbered folder below this one: Ray goes on with what it finds under a name it knows."""
    fresh = _first_free(folder)
    fresh.mkdir(parents=True)
    return fresh


def _first_free(folder: Path, stem: str = "") -> Path:
    numbered = (folder / f"{stem}{number:03d}" for number in count(1))
    return next(path for path in numbered if not path.exists())


def git_sha(path: Path = Path(__file__)) -> str | None:
    """Return the commit of the repository that tracks this file, with `-dirty` where it has changes; none outside one.

    An installed copy that only happens to lie below somebody's repository has no commit.
    """
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(path.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603  # fixed words
        return done.stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", path.name)
        return ask("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (subprocess.SubprocessError, OSError):
        return None
