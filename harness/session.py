"""Session of a recorded run: its recorder, its progress, its results and its report, whatever kind of run it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from harness.ablation.request import Request, write_request
from harness.ablation.results import RESULTS, Ablation, read_results
from harness.ablation.results import write_results as write_results_of
from harness.ablation.run import evaluate_runs, gather
from harness.ablation.tracking import params_of as ablation_params
from harness.ablation.tracking import record_outcomes, record_winner, run_tags
from harness.cluster import allocate, cluster_slots, cores, local_slots
from harness.connection import ray_session
from harness.console import Console, Tally, program, show_progress
from harness.formats import counted
from harness.gangs.jobs import Jobs, run_jobs
from harness.gangs.sharing import measured_sharing
from harness.ledger import LEDGER, History, read_ledger
from harness.one_driver import sole_driver
from harness.reporting.ablation.record import read_ablation
from harness.reporting.best import write_best
from harness.reporting.next_steps import next_commands, resume_command, storage_option, train_best
from harness.reporting.record import read_or_rebuild
from harness.reporting.records import (
    differences_to,
    params_of,
    record_beginning,
    record_best,
    record_search,
    record_verdict,
    search_note,
)
from harness.reporting.results import FILES, Collector, Results, write_results
from harness.reporting.themes import DARK
from harness.run_folder import PICTURE, RunInfo, existing_folder, kind_of, read_run
from harness.showing import show, show_table
from harness.start import Start
from harness.tracking.node_metrics import NodeMetrics
from harness.tracking.outbox import how_closed, pending, require_operations
from harness.tracking.recorder import Delivery, MlflowRecorder, close_books, recording, replay, tags_of
from harness.tracking.stores import EXPERIMENT, OUTBOX, check_places
from harness.trials import Experiment, GangsBrokenError, TrialObserver, UnfinishedError, checked_sharing
from harness.tuning.objectives import Objective, parse_objectives
from search_spaces import Space
from trainers.errors import UsageError

SEND_S = 30.0
"""How long a command that is not `s4 sync` waits for what an earlier one could not send."""


@dataclass(frozen=True)
class Session:
    """A search or a training, checked and ready to start or to go on."""

    folder: Path
    """Absolute; its name is the run's."""
    info: RunInfo
    experiment: Experiment
    tracking_uri: str
    console: Console
    objectives: Sequence[Objective]
    """The primary one first."""
    total: int = 1
    """Trials."""
    space: Space | None = None
    earlier: History = field(default_factory=History)
    """What earlier sessions left."""
    mlflow_experiment: str = EXPERIMENT
    """Of a new run; one that goes on stays in its own."""
    register: bool = False
    """Whether the best teacher becomes a registered model."""
    start: Start = field(default_factory=Start)
    """Stamps of the start so far."""

    def announce(self, *lines: str) -> None:
        """Say what begins, and where it goes."""
        for line in (*lines, f"results in {self.folder}, records at {self.tracking_uri}"):
            self.console.say(line)


@contextmanager
def watching(recorder: MlflowRecorder, tally: Tally, console: Console) -> Iterator[TrialObserver]:
    """Yield the observer that shows progress; meanwhile the nodes' load is recorded."""
    with NodeMetrics(recorder.system), show_progress(console, tally) as progress:
        yield progress


def record_session(session: Session, work: Callable[[Sequence[TrialObserver]], object], report: bool = True) -> Results:
    """Run `work` with the observers of a session, and return the results. They are written whatever happens.

    Raises:
        BaseException: what `work` raises; the records say so.
    """
    info, folder, console = session.info, session.folder, session.console
    objective, space = session.objectives[0], session.space
    earlier, started = list(session.earlier.trials.values()), time.monotonic() - session.earlier.elapsed_s
    collector, paths = Collector(earlier), space.paths if space else ()
    tally = Tally(
        session.total, info.horizon, objective.metric, earlier=earlier, maximise=objective.maximise,
        single=info.kind == "train", label=(lambda _: "training") if info.kind == "train" else "trial {}".format,
    )  # fmt: skip
    tags = tags_of(folder, info, session.experiment, **({"space": space.name} if space else {}))
    with recording(
        folder, info, session.tracking_uri, tags, console, metric=objective.metric, maximise=objective.maximise,
        mlflow_experiment=session.mlflow_experiment,
        params=params_of(info, space), trial_tags=differences_to(space.baseline) if space else None,
        written=lambda: session.start.mark("mlflow"),
    ) as recorder:  # fmt: skip
        record_beginning(recorder, session.experiment, folder, info.config)
        if space is not None:
            recorder.artifact("space.yaml", space.text)
        recorder.catch_up(earlier)
        session.start.mark("records")
        try:
            with watching(recorder, tally, console) as progress:
                work([recorder, collector, progress])
        finally:
            results = Results(
                name=folder.name, kind=info.kind, preset=info.preset, space=space.name if space else None,
                metric=objective.metric, horizon=info.horizon, elapsed_s=time.monotonic() - started,
                tracking_uri=session.tracking_uri, paths=paths, rows=collector.rows(paths, session.objectives),
                objectives=[str(objective) for objective in session.objectives],
                ours=space is not None and space.ours_params is not None,
                published=space is None or bool(space.source),
            )  # fmt: skip
            try:
                write_results(folder, results)
                reported = {name for trial in collector.trials.values() for name in trial.metrics}
                record_search(recorder, folder, info, space, results, reported)
                if session.register:
                    console.say(record_best(recorder, folder, session.experiment, results, collector.trials))
            except OSError as error:  # a full disk: how the session ended must be said all the same
                console.say(f"results cannot be written into {folder}: {error}")
        page = leave_report(folder, recorder, console) if report else None
        if page is not None:
            recorder.note(search_note(results, report=True))
    show(results, folder, console)
    if page is not None:
        console.say(f"report: {page}")
    if (folder / PICTURE).exists():
        console.say(f"picture: {folder / PICTURE}")
    console.say(f"next: {next_commands(folder, session.tracking_uri, program())}")
    return results


def ablate_session(
    folder: Path,
    request: Request,
    experiment: Experiment,
    metric: str,
    tracking_uri: str,
    console: Console,
    *,
    workers: int,
    cpus: int | None = None,
    gangs: int | None,
    gangs_per_gpu: int | str = 1,
    address: str,
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    mlflow_experiment: str = EXPERIMENT,
    register: bool = False,
    start: Start | None = None,
    profile_start: bool = False,
) -> Ablation:
    """Train what is missing of an ablation, evaluate, write down and record what came of it, and show it.

    Args:
        start: stamps of the start so far; `profile_start`: whether they are shown at the end.

    Raises:
        UnfinishedError: it ended before all runs were over.
        KeyboardInterrupt: it was interrupted.
    """
    ablation = _finished(folder, request, metric)
    if ablation is not None and recorded_to_the_end(folder) and not register:
        send_left(folder, tracking_uri, console)
        console.say(
            f"{folder.name} is finished: nothing to train{'' if request.confirms else '; more seeds can be asked for'}"
        )
        return ablation
    require_operations(folder / OUTBOX)
    for line in experiment.describe():
        console.say(line)
    shared, plan, local = checked_sharing(gangs_per_gpu), (workers, gangs, len(request.runs)), None
    if address == "local" and shared is not None:
        local = allocate(local_slots(cpus, shared), *plan)
    info, again, start = request.info, "the same command goes on", start or Start()
    start.mark("input")
    with (
        going_on(console, again),
        show_start(start, console, profile_start),
        ray_session(address, cpus=cores() if address == "local" else None, say=console.say),
    ):
        start.mark("ray")
        shared = shared or measured_sharing(experiment, cpus or 1, console.say)
        allocation = local or allocate(cluster_slots(cpus, shared), *plan)
        start.mark("plan")
        write_request(folder, request)
        history = read_ledger(folder / LEDGER)
        earlier = list(history.trials.values())
        tags = {"plan": request.plan, "base": request.base, "objective": metric}
        if request.confirms is not None:
            tags = {"confirms": request.confirms.search, "objective": metric}
        with recording(
            folder, info, tracking_uri, tags_of(folder, info, experiment, **tags), console, metric=request.watched,
            mlflow_experiment=mlflow_experiment,
            params=ablation_params(request, metric), trial_tags=lambda trial: run_tags(request, trial),
            trial_name=lambda trial: request.runs[trial.number].label, written=lambda: start.mark("mlflow"),
        ) as recorder:  # fmt: skip
            record_beginning(recorder, experiment, folder, info.config, val=True)
            variants = {variant.name: dict(variant.overrides) for variant in request.variants}
            recorder.artifact("plan.yaml", request.plan_text or yaml.safe_dump({"variants": variants}, sort_keys=False))
            left = len(request.runs) - sum(trial.state.over for trial in earlier)
            console.say(
                f"{folder.name}: {counted(len(request.tried), 'variant')} of {info.preset}, "
                f"{counted(len(request.seeds), 'seed')} ({', '.join(map(str, request.seeds))}): {len(request.runs)} "
                f"trainings of {counted(info.horizon, 'step')}, {left} to train; {allocation.words}"
            )
            console.say(f"results in {folder}, records at {tracking_uri}")
            recorder.catch_up(earlier)
            tally = Tally(
                len(request.runs), info.horizon, request.watched, earlier=earlier,
                label=lambda number: request.runs[number].label,
            )  # fmt: skip
            overrides = [request.overrides(run) for run in request.runs]
            start.mark("records")
            with watching(recorder, tally, console) as progress:
                seen = [recorder, progress, *observers]
                jobs = Jobs(folder, experiment, overrides, allocation, observers=seen, earlier=history, start=start)
                end = run_jobs(jobs)
            if end.reason is not None:
                raise UnfinishedError(f"not finished: {end.reason}; {again}")
            ablation = gather(folder, request, metric, tracking_uri, {})
            if request.confirms is not None:
                write_results_of(folder, ablation)  # the choice, before the validation images are read
            runs = ablation.to_evaluate
            late = evaluate_runs(folder, experiment, request, runs, allocation, console)
            ablation = gather(folder, request, metric, tracking_uri, late)
            write_results_of(folder, ablation)
            record_outcomes(recorder, folder, ablation)
            if register:
                console.say(record_winner(recorder, folder, ablation))
            page = leave_report(folder, recorder, console) if report else None
            record_verdict(recorder, folder, ablation, report=page is not None)
    if page is not None:
        console.say(f"report: {page}")
    return ablation


def _finished(folder: Path, request: Request, metric: str) -> Ablation | None:
    """Return an ablation of which every run that is asked for is over and was evaluated; else none."""
    if not (folder / RESULTS).exists():
        return None
    ablation = read_results(folder)
    over = {(run.variant, run.seed) for run in ablation.outcomes if run.state in ("COMPLETE", "PRUNED", "FAIL")}
    if any((run.variant, run.seed) not in over for run in request.runs):
        return None
    if request.confirms is not None and any(metric not in run.metrics for run in ablation.to_evaluate):
        return None
    return replace(ablation, metric=metric)


def recorded_to_the_end(folder: Path) -> bool:
    """Return whether the last session of a run came to its own end, or left no outbox, as in a copy of its folder."""
    if not (folder / OUTBOX).exists():
        return True
    results = any((folder / name).exists() for name in (FILES[0], RESULTS))
    return results and how_closed(folder / OUTBOX) == "FINISHED"


def left_open(folder: Path) -> bool:
    """Return whether a driver that was killed left the records of a run open."""
    if not (folder / OUTBOX).exists() or how_closed(folder / OUTBOX) is not None:
        return False
    with suppress(UsageError, OSError), sole_driver(folder):
        return True
    return False


def send_left(folder: Path, tracking_uri: str, console: Console) -> None:
    """Send what the driver of a run that is over did not get to send."""
    if pending(folder / OUTBOX) and (note := replay(folder / OUTBOX, tracking_uri, SEND_S).note):
        console.say(f"tracking: {note}")


def send_records(folder: Path, tracking_uri: str) -> Delivery:
    """Send what MLflow lacks of a run, and end what a driver that was killed left open there.

    Raises:
        UsageError: a driver is at it, nothing was recorded, or a file of the run cannot be read.
    """
    outbox = folder / OUTBOX
    if outbox.exists():
        check_places(folder, tracking_uri)
    if not outbox.exists() or how_closed(outbox) is not None or kind_of(folder) is None:
        return replay(outbox, tracking_uri)
    info = read_run(folder)
    with sole_driver(folder):
        objective = parse_objectives(info.request.get("options", {}).get("objective") or [info.metric])[0]
        return close_books(folder, tracking_uri, objective.maximise)


@contextmanager
def show_start(start: Start, console: Console, asked: bool) -> Iterator[None]:
    """Show at the end what the start of a session took, where that was asked for and there was a report."""
    try:
        yield
    finally:
        if asked and start.by_report:
            from harness.reporting.start import waterfall  # which draws, too

            terminal = console.rich.is_terminal and console.rich.encoding.startswith("utf")
            console.table(waterfall(start, "━" if terminal else "="))


def go_on_with(folder: Path, command: str, tracking_uri: str) -> str:
    """Return how to go on with a run, as it must be typed here."""
    return f"go on with {resume_command(folder, command, tracking_uri, program())}"


@contextmanager
def going_on(console: Console, again: str) -> Iterator[None]:
    """Say how to go on where a run ends early."""
    try:
        yield
    except KeyboardInterrupt:
        console.say(f"interrupted: what was done is kept; {again}")
        raise
    except GangsBrokenError as error:
        console.say(f"failed: {error}")
        console.say(f"once that is mended, {again}")
        raise


def leave_report(folder: Path, recorder: MlflowRecorder, console: Console) -> Path | None:
    """Write the report and record its files; return the page, none where it failed: no run is lost for a picture."""
    from harness.reporting.reports import report_on

    try:
        files = report_on(folder)
        for file in files:
            if file.parent.name != "figures" or (file.suffix == ".png" and not file.stem.endswith(f"-{DARK.name}")):
                recorder.file(file, folder=file.parent.relative_to(folder).as_posix())
    except (Exception, KeyboardInterrupt) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        console.say(f"no report: {why}; s4 report {folder.name} tries again")
        return None
    return files[0]


def report_again(storage: Path, name: str, console: Console) -> Path:
    """Show the results of a run as far as it is, write its report, and return the page.

    Raises:
        UsageError: there is no such run, or it has no results.
        UnfinishedError: the report cannot be written.
    """
    from harness.reporting.reports import report_on
    from harness.reporting.scaling import is_scaling, read_scaling, scaling_tables

    folder = existing_folder(storage, name)
    if is_scaling(folder):
        data = dict(read_scaling(folder) or {"name": name, "kind": "scale"})
        for table in scaling_tables(data) if "points" in data else ():
            console.table(table)
        for line in data.get("lines", ["it ended early: measure again with s4 scale"]):
            console.say(line)
    elif kind_of(folder) in ("ablation", "confirm"):
        ablation = read_ablation(folder)
        show_table(ablation, folder, console)
        data = ablation.to_dict()
    else:
        results = read_or_rebuild(folder)
        show(results, folder, console)
        data = results.to_dict()
    try:
        if kind_of(folder) == "search" and write_best(folder, read_run(folder), results) is not None:
            console.say(f"the best: {train_best(folder, program())}")
        page = report_on(folder)[0]
    except OSError as error:
        raise UnfinishedError(f"failed: the report cannot be written into {folder}: {error}") from None
    console.say(f"report: {page}")
    if left_open(folder):
        console.say(f"its driver was killed: go on with it, or {program()} sync {name}{storage_option(folder)} closes "
                    "its records")  # fmt: skip
    console.result({**data, "report": str(page)})
    return page
