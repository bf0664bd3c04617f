"""Trainings of one configuration, begun and gone on with, and measurements of how they scale."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.api.experiments import Settings, check_register, chosen_experiment, experiment_again, resumed
from harness.cluster import Allocation, cluster_slots, cores, gang_count, local_slots
from harness.connection import ray_session
from harness.console import Console, make_console
from harness.experiment import CssExperiment
from harness.formats import counted
from harness.gangs.jobs import Jobs, run_jobs
from harness.ledger import LEDGER, History, read_ledger
from harness.one_driver import new_run, sole_driver
from harness.reporting.results import Results
from harness.run_folder import RunInfo, check_same, write_run
from harness.session import (
    Session,
    go_on_with,
    going_on,
    record_session,
    recorded_to_the_end,
    send_left,
    show_start,
)
from harness.start import Start
from harness.tracking.stores import EXPERIMENT, absolute_uri, check_places
from harness.trials import Experiment, TrialObserver, TrialState
from harness.tuning.objectives import Objective
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.scaling.report import Scaling


def train(
    experiment: Experiment | str | None = None,
    *,
    settings: Settings | None = None,
    method: str | None = None,
    workers: int | str = 1,
    cpus_per_worker: int | None = None,
    name: str | None = None,
    resume: bool = False,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    mlflow_experiment: str = EXPERIMENT,
    address: str = "local",
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    register: bool = False,
    profile_start: bool = False,
    command_began: float | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> Results:
    """Train one configuration, recorded like a trial of a search.

    Ctrl-C ends it in order and raises KeyboardInterrupt; `resume=True` with its `name` goes on, after a crash too.
    Where a node is lost, it goes on from its last checkpoint.

    Args:
        experiment: what is trained; default: `digits_css`.
        method: with a preset: a name of `trainers.methods.METHODS`, such as `css_mix`.
        workers: processes that train together, N or `"MIN:MAX"`: as many as the cluster holds now, more or fewer later.
        cpus_per_worker: CPUs of each, with as many threads to compute and to decode; none: 1, decoding with up to 8.
        profile_start, command_began: as of `search`.

    Returns:
        One row; its state says whether the horizon was reached.

    Raises:
        UsageError: it cannot be done as asked; nothing was started.
        GangsBrokenError: the gang could not go on.
        KeyboardInterrupt: it was interrupted.
    """
    console, start = console or make_console(quiet), Start.since(command_began)
    place, uri = Path(storage), absolute_uri(tracking_uri)
    if resume:
        kept, before = resumed(place, name, "train")
        experiment = experiment_again(experiment, before, settings, method)
    else:
        experiment = chosen_experiment(experiment or "digits_css", settings, method)
    with sole_driver(kept) if resume else new_run(place, name, experiment.name) as folder:
        check_places(folder, uri)
        check_register(register, experiment)
        asked: dict[str, str | int] = {} if workers in (1, "1") else {"workers": str(workers)}
        if cpus_per_worker is not None:
            asked["cpus_per_worker"] = cpus_per_worker
        info = RunInfo.of("train", experiment, experiment.metric, asked)
        sizes = worker_sizes(workers, experiment)
        if address == "local" and cpus_per_worker is not None:
            gang_count(local_slots(cpus_per_worker), sizes[0], None, 1)
        earlier = History()
        if resume:
            check_same(before, info, "begin another training with another --name")
            earlier = read_ledger(folder / LEDGER)
            over = 0 in earlier.trials and earlier.trials[0].state is TrialState.COMPLETE
            if over and recorded_to_the_end(folder) and not register:
                send_left(folder, uri, console)
                must = "a training that goes on must not be over"
                raise UsageError(f"{must}, {name} is complete: s4 report {name} shows it")
        objective = Objective(experiment.metric, "max")
        session = Session(
            folder, info, experiment, uri, console, (objective,), earlier=earlier, register=register,
            mlflow_experiment=mlflow_experiment, start=start,
        )  # fmt: skip
        for line in experiment.describe():
            console.say(line)
        session.announce(
            f"{folder.name}: {info.preset}, {counted(info.horizon, 'step')}, a report every {info.report_every}, "
            f"{workers} worker{'' if str(workers) == '1' else 's'}"
        )
        return _train(session, sizes, cpus_per_worker, address, observers, report, profile_start)


def _train(
    session: Session,
    sizes: tuple[int, ...],
    cpus: int | None,
    address: str,
    observers: Sequence[TrialObserver],
    report: bool,
    profile_start: bool,
) -> Results:
    """Run a session of a training whose lock is held."""
    folder, console, ends = session.folder, session.console, list[str | None]()
    again = go_on_with(folder, "train", session.tracking_uri)
    session.start.mark("input")
    with (
        going_on(console, again),
        show_start(session.start, console, profile_start),
        ray_session(address, cpus=max(cores(), sizes[-1]) if address == "local" else None, say=console.say),
    ):
        session.start.mark("ray")
        write_run(folder, session.info)
        allocation = Allocation(workers_per_gang=sizes[0], worker=cluster_slots(cpus).worker)

        def work(more: Sequence[TrialObserver]) -> None:
            jobs = Jobs(
                folder, session.experiment, ({},), allocation, sizes, [*more, *observers], session.earlier, single=True,
                save_interval_s=0.0, hang_timeout_s=None, start=session.start,
            )  # fmt: skip
            end = run_jobs(jobs)
            ends.append(end.reason)
            if end.trials[0].state is TrialState.COMPLETE:
                session.experiment.draw(folder)

        results = record_session(session, work, report)
    if ends[0] is not None:
        console.say(f"ended early: {ends[0]}; {again}")
    return replace(results, reason=ends[0])


def worker_sizes(workers: int | str, experiment: Experiment) -> tuple[int, ...]:
    """Return how many workers may train together, ascending: N, or those from MIN to MAX that share the batches.

    Raises:
        UsageError: it is neither N nor MIN:MAX, or no number in between can train the experiment.
    """
    match = re.fullmatch(r"(\d+)(?::(\d+))?", str(workers))
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise UsageError(
            f"--workers must be N or MIN:MAX with 1 <= MIN <= MAX, got {workers}: give, for example, 2 or 1:4"
        )
    sizes, refused = [], UsageError("")
    for size in range(least, most + 1):
        try:
            experiment.check(size)
        except UsageError as error:
            refused = error
        else:
            sizes.append(size)
    if not sizes:
        raise refused
    return tuple(sizes)


def scale(
    experiment: CssExperiment | str = "digits_css",
    *,
    workers: Sequence[int] = (),
    cpus_per_worker: int | None = None,
    mode: Literal["weak", "strong"] = "weak",
    steps: int = 20,
    blocks: int = 5,
    warmup: int = 10,
    repeats: int = 3,
    settings: Settings | None = None,
    name: str | None = None,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    mlflow_experiment: str = EXPERIMENT,
    address: str = "local",
    console: Console | None = None,
    quiet: bool = False,
) -> Scaling:
    """Measure how training scales with workers: speed, efficiency, communication, input, bytes, memory; and predict.

    Args:
        workers: worker counts, ascending; none: 1, 2, 4, ... as fits.
        mode: constant batch of each worker (weak), of all together (strong).

    Raises:
        UsageError: the workers do not fit, or the name is refused.
        MeasurementError: a point could not be measured.
    """
    chosen = CssExperiment.of(experiment, settings) if isinstance(experiment, str) else experiment
    from harness.scaling.session import make_request, run_scaling

    request = make_request(chosen, mode, tuple(workers), steps, blocks, warmup, repeats, cpus=cpus_per_worker)
    return run_scaling(
        request, Path(storage), name, address, tracking_uri, console or make_console(quiet), mlflow_experiment
    )
