"""Commands to type next, for what lies in the folder of a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.ablation.results import OURS, Ablation
from harness.experiment import CssExperiment
from harness.reporting.document import Commands, Section
from harness.reporting.record import Record
from harness.run_folder import BEST, RunInfo
from harness.tracking.stores import default_tracking_uri
from harness.tuning.config import HIDDEN, WORKERS, SearchConfig
from search_spaces.ablation import list_plans, load_plan
from trainers.overrides import as_setting

CSS = CssExperiment.trainer
SCALE_OPTIONS = ("mode", "steps", "blocks", "warmup", "repeats")
MORE = 2
"""Seeds that are proposed beside those that an ablation has."""

RECORDS = "its records in MLflow: a description, a table, curves"


def next_commands(folder: Path, tracking_uri: str, program: str = "s4") -> str:
    """Return the commands that show more of a run, in a line for a terminal."""
    name = shlex.quote(folder.name)
    report = f"{program} report {name}{storage_option(folder)}"
    best = f"    the best: {train_best(folder, program)}" if (folder / BEST).exists() else ""
    return f"{report}{best}    records: {program} ui {name}{_tracking_option(tracking_uri)}"


def train_best(folder: Path, program: str = "s4") -> str:
    """Return the command that trains the best settings of a search."""
    file, here = folder / BEST, Path.cwd()
    return f"{program} train {shlex.quote(str(file.relative_to(here) if file.is_relative_to(here) else file))}"


def resume_command(folder: Path, command: str, tracking_uri: str | None = None, program: str = "s4") -> str:
    """Return the line that goes on with a search (command `tune`) or a training (`train`)."""
    name = shlex.quote(folder.name)
    return f"{program} {command} --resume --name {name}{storage_option(folder)}{_tracking_option(tracking_uri)}"


def storage_option(folder: Path) -> str:
    """Return the option that names where this folder lies, where it is not the default."""
    storage = folder.parent
    return "" if storage == Path("runs").resolve() else f" --storage {shlex.quote(str(storage))}"


def _tracking_option(uri: str | None) -> str:
    return "" if uri in (None, default_tracking_uri()) else f" --tracking-uri {shlex.quote(str(uri))}"


def search_steps(record: Record) -> Section:
    """Return the section on what to do next with a search."""
    rows = [
        (confirm_command(record), "does the best configuration beat the noise of seeds?"),
        *_looks(record.folder, "this report again, as far as the search is then"),
        (f"s4 doctor {_target(record.folder)}", "do ledger, Optuna, MLflow and checkpoints agree?"),
    ]
    if (record.folder / BEST).exists():
        rows.insert(1, (train_best(record.folder), "train the best settings"))
    if record.unfinished:
        rows.insert(0, (_resume(record, "tune", "search"), "go on with the search"))
    return Section("Go on", [Commands(rows)])


def training_steps(record: Record) -> Section:
    """Return the section on what to do next with a training."""
    rows = _looks(record.folder, "this report again")
    if record.results.best is None:
        rows.insert(0, (_resume(record, "train", "train"), "go on with it"))
    return Section("Go on", [Commands(rows)])


def ablation_steps(ablation: Ablation, folder: Path) -> Section:
    """Return the section on what to do next with an ablation."""
    seeds = ablation.request.seeds
    more = range(max(seeds) + 1, max(seeds) + 1 + MORE)
    rows = _looks(folder, "this report again")
    if ablation.request.confirms is None:  # a confirmation goes on with the seeds it began with
        command = ablate_command(ablation, folder, (*seeds, *more))
        rows.insert(0, (command, "train more seeds; those that are there stay"))
    if any(run.state in ("MISSING", "RUNNING", "INTERRUPTED") for run in ablation.outcomes):
        rows.insert(0, (ablate_command(ablation, folder, seeds), "train what is missing"))
    return Section("Go on", [Commands(rows)])


def beginning(folder: Path, info: RunInfo | None, what: str) -> list[Commands]:
    """Return the command that began a search or a training, and the one that trains its best settings, as far as known.

    Python begins an own experiment.
    """
    rows = [(begin_command(folder, info), f"began this {what}")] if info is not None and info.trainer == CSS else []
    if (folder / BEST).exists():
        rows.append((train_best(folder), "trains the best settings"))
    return [Commands(rows)] if rows else []


def confirm_command(record: Record) -> str:
    """Return the command that confirms a search, or the call of the Python API where its experiment is an own one."""
    if record.own:
        return _call(record.folder, "confirm", repr(record.name), "experiment=experiment")
    return f"s4 confirm {_target(record.folder)}"


def _resume(record: Record, command: str, function: str) -> str:
    if record.own:
        return _call(record.folder, function, "experiment", f"name={record.name!r}", "resume=True")
    return resume_command(record.folder, command)


def _call(folder: Path, function: str, *arguments: str) -> str:
    """Return a call of the Python API; `experiment` stands for the one that the run began with."""
    storage = [f"storage={str(folder.parent)!r}"] if storage_option(folder) else []
    return f"harness.{function}({', '.join([*arguments, *storage])})"


def _target(folder: Path) -> str:
    return f"{shlex.quote(folder.name)}{storage_option(folder)}"


def _looks(folder: Path, report: str) -> list[tuple[str, str]]:
    """Return the commands that show a run; a page that is sent names no store, whose address may hold a password."""
    return [(f"s4 report {_target(folder)}", report), (f"s4 ui {shlex.quote(folder.name)}", RECORDS)]


def ablate_command(ablation: Ablation, folder: Path, seeds: Sequence[int]) -> str:
    """Return the command that goes on with an ablation, or with trainings of one configuration, with these seeds.

    Of an own experiment it is the call of the Python API.
    """
    request = ablation.request
    counted = tuple(seeds) == tuple(range(len(seeds)))
    listed = ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")  # a lone number would be a count
    # the space's own values, the last where they are not among the best, come with any --top
    top = len(ablation.others) - (ablation.others[1:][-1:] == [OURS])
    if request.info.trainer != CSS:
        named = [f"seeds={tuple(seeds)}", f"name={ablation.name!r}"]
        if request.confirms:
            search = [repr(request.confirms.search), "experiment=experiment", f"top={top}"]
            return _call(folder, "confirm", *search, *named)
        return _call(folder, "ablate", "experiment", f"plan={request.plan!r}", *named)
    words = ["s4", "noise", request.preset, "--seeds", str(len(seeds)) if counted else listed]
    settings = {} if request.confirms else request.settings  # a confirmation has those of its search
    if request.confirms:
        words = ["s4", "confirm", request.confirms.search, "--top", str(top), "--seeds", listed]
    elif len(request.variants) > 1:
        # a plan that does not come with the package is in a file, which must be found again
        shipped = request.plan in list_plans() and load_plan(request.plan).text == request.plan_text
        plan = request.plan if shipped else f"{request.plan}.yaml"
        words = ["s4", "ablate", plan, "--preset", request.preset, "--seeds", listed]
        if len(request.tried) < len(request.variants):
            words += ["--only", ",".join(ablation.others or [request.base])]
    if request.vary_data:
        words.append("--vary-data")
    if ablation.others and ablation.metric != "val/miou" and not request.confirms:
        words += ["--metric", ablation.metric]
    words += _set(settings)
    if ablation.name != request.plan:
        words += ["--name", ablation.name]
    return shlex.join(words) + storage_option(folder)


def begin_command(folder: Path, info: RunInfo) -> str:
    """Return a command that begins the same search, training or scaling measurement, by the same name.

    What a config file set stands in it by itself. Of ablations see `ablate_command`.
    """
    request, words = info.request, list[str]()
    if info.kind == "search":
        words = ["s4", "tune", info.preset, *_options(request["options"])]
    elif info.kind == "train":
        words = ["s4", "train", info.preset]
        words += ["--workers", request["workers"]] if request.get("workers") else []
    else:
        words = ["s4", "scale", info.preset, "--workers", ",".join(map(str, request["workers"]))]
        words += [word for name in SCALE_OPTIONS for word in (f"--{name}", str(request[name]))]
    if info.kind != "search" and (cpus := request.get("cpus_per_worker")):
        words += ["--cpus-per-worker", str(cpus)]
    return shlex.join([*words, *_set(info.settings), "--name", folder.name]) + storage_option(folder)


def _set(settings: Mapping[str, Any]) -> Iterator[str]:
    for path, value in settings.items():
        yield from ("--set", as_setting(path, value))


def _options(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options of a search that differ from their defaults."""
    for name, default in SearchConfig().model_dump(mode="json").items():
        value, flag = given.get(name, default), name.replace("_", "-")
        flag = WORKERS[0].removeprefix("--") if name == "workers_per_gang" else flag
        if name in HIDDEN or value == default:
            continue
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            for item in value if isinstance(value, list) else [value]:
                yield from (f"--{flag}", str(item))
