"""What a run of any kind is and how far it is, at work, killed or finished: from its folder alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.ablation.request import read_request
from harness.ablation.results import Ablation, collect
from harness.formats import counted
from harness.ledger import LEDGER, History, Timeline, read_ledger
from harness.one_driver import driver_of
from harness.reporting.ablation.record import JUDGED, read_ablation
from harness.reporting.next_steps import ablate_command, begin_command, resume_command
from harness.reporting.record import read_or_rebuild
from harness.reporting.results import STATES
from harness.run_folder import COMMANDS, SPLITS, Kind, RunInfo, read_run
from harness.tracking.outbox import how_closed
from harness.tracking.stores import OUTBOX
from harness.trials import TrialState
from harness.tuning.config import written_space
from harness.tuning.objectives import parse_objectives
from trainers.errors import UsageError

FILES: Mapping[str, str] = {
    "report/report.html": "the report",
    "best.yaml": "the best settings, for s4 train",
    "results.csv": "all trials",
    "ablation.json": "all runs and comparisons",
    "scale.md": "the measurement",
    "scale.png": "its curve",
    "predictions.png": "image, truth, prediction and pseudo-labels",
    "latest.pt": "the checkpoint",
    "trials": "checkpoints and evaluations by trial",
    "splits": "lists of the labelled, unlabelled and dev images",
    "run.yaml": "what the run began with",
    "trials.jsonl": "every event of a trial",
}
"""Files of a run that people look for, and what they are."""
MEASURED = "scale.json"
PARTS = ("labelled", "unlabelled", "dev")


@dataclass(frozen=True)
class Best:
    """What did best, of those that reached the horizon."""

    title: str
    """`trial 9`, `variant css_mix`, `the training`."""
    metric: str
    value: float
    where: str
    """`at step 900`, `mean of 3 seeds`."""
    values: Mapping[str, Any]
    """What it sets, by dotted config path."""


@dataclass(frozen=True)
class Shown:
    """A run; its fields are JSON-able with `asdict`."""

    name: str
    folder: str
    """Absolute."""
    kind: Kind
    state: str
    """`running`, `finished`, `interrupted` or `killed`."""
    driver: str | None
    """The process that runs it."""
    begun: str | None
    """When the first session began, UTC, where that was written down."""
    revision: str
    """Commit of the code; "" where that is not known."""
    command: str | None
    """Begins the same; none of an own experiment, which Python begins."""
    again: str | None
    """Command that goes on; none where there is nothing to go on with."""
    preset: str
    """Name of the experiment."""
    trainer: str
    settings: Mapping[str, Any]
    """What was set by hand, by dotted config path."""
    task: Mapping[str, Any]
    """What the kind of run adds: space or plan, seeds, sampler, ..."""
    data: Mapping[str, Any]
    """Name and digest, K, and images by their part, as far as they are known."""
    metric: str
    horizon: int
    report_every: int
    planned: int
    """Trials, trainings or points."""
    counts: Mapping[str, int]
    """Those that began, by state."""
    best: Sequence[Best]
    """One; of a crossing plan one a group; none where nothing is complete."""
    files: Mapping[str, str]
    """Of `FILES`, those that are there."""


def read_shown(folder: Path) -> Shown:
    """Return what the folder of a run tells.

    Raises:
        UsageError: no run began there, or a file of it cannot be read.
    """
    info, driver = read_run(folder), driver_of(folder)
    objective = parse_objectives(info.request.get("options", {}).get("objective") or [info.metric])[0]
    timeline = Timeline()
    history = read_ledger(folder / LEDGER, objective.maximise, (timeline.follow,))
    ablation = _ablation(folder, history) if info.kind in ("ablation", "confirm") else None
    planned = _planned(info, ablation)
    states = ["RUNNING" if driver and not trial.state.over else str(trial.state) for trial in history.trials.values()]
    if info.kind == "scale" and (folder / MEASURED).exists():  # it has no ledger
        states = ["COMPLETE"] * planned
    finished = sum(TrialState(state).over for state in states) >= planned
    begun = timeline.times().began_unix
    command = _command(folder, info, ablation)
    again = None if info.kind == "scale" else command
    if info.kind in ("search", "train"):
        again = resume_command(folder, COMMANDS[info.kind][1].split()[1])
    return Shown(
        name=folder.name, folder=str(folder), kind=info.kind,
        state="running" if driver else "finished" if finished else _ended(folder), driver=driver,
        begun=None if begun is None else datetime.fromtimestamp(begun, UTC).strftime("%Y-%m-%d %H:%M"),
        revision=info.revision, command=command, again=None if driver or finished or not command else again,
        preset=info.preset, trainer=info.trainer, settings=dict(info.settings), task=_task(info, ablation),
        data=_data(folder, info), metric=objective.metric if ablation is None else ablation.metric,
        horizon=info.horizon, report_every=info.report_every, planned=planned,
        counts={state: states.count(state) for state in STATES if state in states},
        best=_best(folder, info) if ablation is None else _best_variants(ablation),
        files={name: what for name, what in FILES.items() if (folder / name).exists()},
    )  # fmt: skip


def _ablation(folder: Path, history: History) -> Ablation:
    try:
        return read_ablation(folder)
    except UsageError:  # nothing was trained yet
        request = read_request(folder)
        outcomes = collect(request, history.trials, {})
        return Ablation(folder.name, request, outcomes, JUDGED, "", history.elapsed_s, history.device_s)


def _planned(info: RunInfo, ablation: Ablation | None) -> int:
    if ablation is not None:
        return len(ablation.request.runs)
    if info.kind == "scale":
        return len(info.request["workers"])
    return int(info.request.get("options", {}).get("trials", 1))


def _ended(folder: Path) -> str:
    """Return how the last session of a run that nobody drives ended, and that was not its end."""
    with contextlib.suppress(UsageError):
        return "killed" if (folder / OUTBOX).exists() and how_closed(folder / OUTBOX) is None else "interrupted"
    return "interrupted"


def _command(folder: Path, info: RunInfo, ablation: Ablation | None) -> str | None:
    if info.trainer != "css":
        return None
    return begin_command(folder, info) if ablation is None else ablate_command(ablation, folder, ablation.request.seeds)


def _task(info: RunInfo, ablation: Ablation | None) -> dict[str, Any]:
    if ablation is not None:
        request = ablation.request
        variants = [variant.name for variant in request.tried]
        confirmed = {"search": request.confirms.search} if request.confirms else {"plan": request.plan}
        return {**confirmed, "variants": variants, "seeds": list(request.seeds), "vary_data": request.vary_data}
    if info.kind == "search":
        space, options = written_space(info), info.request["options"]
        kept = {name: options[name] for name in ("sampler", "scheduler") if name in options}
        return {"space": space.name, "parameters": list(space.paths), **kept, "sampler_seed": options.get("seed")}
    return dict(info.request)


def _data(folder: Path, info: RunInfo) -> dict[str, Any]:
    data = info.config.get("data", {})
    known = {name: data[name] for name in ("name", "root") if name in data} if isinstance(data, Mapping) else {}
    parts: dict[str, Any] = {}
    for part in PARTS:
        with contextlib.suppress(OSError):  # it did not get as far
            parts[part] = len((folder / SPLITS / f"{part}.txt").read_text(encoding="utf-8").splitlines())
    return {**known, **({"digest": info.data_digest} if info.data_digest else {}), **parts}


def _best(folder: Path, info: RunInfo) -> list[Best]:
    try:
        results = read_or_rebuild(folder)
    except UsageError:  # nothing was trained yet
        return []
    best = results.best
    if info.kind not in ("search", "train") or best is None or best.best is None:
        return []
    title = f"trial {best.number}" if info.kind == "search" else "the training"
    return [Best(title, results.metric, best.best, f"at step {best.best_step}", dict(best.values))]


def _best_variants(ablation: Ablation) -> list[Best]:
    """Return the variants that lead; of a confirmation the one that was chosen."""
    request = ablation.request
    if not ablation.winners:  # nothing was evaluated yet
        ablation = replace(ablation, metric=request.watched)
    rows = []
    for name in filter(None, [ablation.chosen] if request.confirms else ablation.winners.values()):
        metric = ablation.metric if ablation.scores(name, ablation.metric) else request.watched
        scores = ablation.scores(name, metric)
        where = f"mean of {counted(len(scores), 'seed')}"
        value = sum(scores.values()) / len(scores)
        rows.append(Best(f"variant {name}", metric, value, where, dict(request.variant(name).overrides)))
    return rows


def lines(shown: Shown) -> Iterator[str]:
    """Yield a run for people: names and values, one a line."""
    rows = list(_rows(shown))
    width = max(len(name) for name, _ in rows)
    yield from (f"{name:<{width}}  {value}" for name, value in rows)


def _rows(shown: Shown) -> Iterator[tuple[str, str]]:
    yield "run", f"{shown.name}, {COMMANDS[shown.kind][0]}"
    yield "folder", shown.folder
    yield "state", shown.state + (f" by {shown.driver}" if shown.driver else "")
    if shown.begun:
        yield "begun", f"{shown.begun} UTC" + (f", revision {shown.revision[:12]}" if shown.revision else "")
    yield "command", shown.command or f"in Python, with an experiment of the class {shown.trainer}"
    yield "preset" if shown.trainer == "css" else "experiment", shown.preset
    yield from _block("set by hand", _pairs(shown.settings))
    yield from ((name.replace("_", " "), _text(value)) for name, value in shown.task.items())
    yield "data", _data_text(shown.data)
    yield "horizon", f"{shown.horizon} steps, a report every {shown.report_every}; {shown.metric}"
    states = ", ".join(f"{count} {STATES[state]}" for state, count in shown.counts.items()) or "none began"
    what = {"search": "trials", "train": "training", "scale": "points"}.get(shown.kind, "trainings")
    yield what, f"{sum(shown.counts.values())} of {shown.planned}: {states}"
    for best in shown.best:
        yield "best", f"{best.title}, {best.metric} {best.value:.4f} {best.where}"
        yield from _block("", _pairs(best.values))
    yield from _block("files", _aligned(shown.files))
    if shown.again:
        yield "go on", shown.again


def _data_text(data: Mapping[str, Any]) -> str:
    words = [str(data[key]) for key in ("name", "root") if key in data]
    words += [f"splits {data['digest']}"] if "digest" in data else []
    words += [f"{data[part]} {part}" for part in PARTS if part in data]
    return ", ".join(words) or "not known"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return _aligned(
        {path: f"{value:.4g}" if isinstance(value, float) else str(value) for path, value in values.items()}
    )


def _aligned(pairs: Mapping[str, str]) -> list[str]:
    width = max(map(len, pairs), default=0)
    return [f"{name:<{width}}  {value}" for name, value in pairs.items()]


def _block(name: str, values: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield a row a value, the first with the name."""
    yield from ((name if index == 0 else "", value) for index, value in enumerate(values))
