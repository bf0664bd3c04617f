"""Searches: begun, and gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from optuna.trial import FrozenTrial

from harness.api.experiments import Settings, check_register, chosen_experiment, experiment_again, resumed
from harness.cluster import Allocation, Slots, allocate, cluster_slots, cores, local_slots
from harness.connection import ray_session
from harness.console import Console, make_console
from harness.formats import counted
from harness.gangs.sharing import measured_sharing
from harness.ledger import LEDGER, read_ledger
from harness.one_driver import new_run, sole_driver
from harness.reporting.results import Results
from harness.run_folder import RunInfo, check_same, named_folder, read_run, write_run
from harness.session import (
    Session,
    go_on_with,
    going_on,
    record_session,
    show_start,
)
from harness.start import Start
from harness.tracking.stores import EXPERIMENT, absolute_uri, check_places
from harness.trials import Experiment, TrialObserver, checked_sharing
from harness.tuning.config import LASTING, SearchConfig, extremes, fit_space, rungs, written_space
from harness.tuning.joining import check_joining, num_of_others, standing
from harness.tuning.objectives import check_metrics
from harness.tuning.run import Search, run_search
from harness.tuning.shared import shared_of
from harness.tuning.study import fault_of, rebuild, reconcile
from harness.tuning.warm_start import earlier_trials
from search_spaces import Space, SpaceError, load_space
from trainers.errors import UsageError


def search(
    experiment: Experiment | str | None = None,
    *,
    space: Space | Path | str | None = None,
    settings: Settings | None = None,
    method: str | None = None,
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
    **options: Any,
) -> Results:
    """Search a space of hyperparameters: the baseline first, bad trials stopped early, all of it recorded.

    Ctrl-C ends a search in order and raises KeyboardInterrupt; `resume=True` with its `name` goes on, after a crash
    too: what is not given is as it began.

    Args:
        experiment: what is trained; default: `digits_css`.
        space: a search space, its name or its YAML file; default: `css_quick`.
        method: with a preset: a name of `trainers.methods.METHODS`, such as `supervised`.
        observers: told of everything that happens to trials, in the driver.
        report: whether the HTML report is written at the end.
        register: whether the best teacher becomes the registered model `s4-NAME`, under the alias `champion`.
        profile_start: whether it is shown at the end what passed between the command and the first report.
        command_began: when the process of a command that calls this began, seconds since 1970; none: there is none.
        options: of `SearchConfig`: trials, gangs, scheduler, sampler, seed, max_hours, ...

    Returns:
        All trials, best first; `reason` says why the session ended before all were over, where it did.

    Raises:
        UsageError: it cannot be done as asked; nothing was started.
        GangsBrokenError: the gangs could not go on.
        KeyboardInterrupt: it was interrupted.
    """
    console, start = console or make_console(quiet), Start.since(command_began)
    if space is not None:
        options["space"] = str(space) if isinstance(space, str | Path) else space.name
    place, uri = Path(storage), absolute_uri(tracking_uri)
    if resume:
        folder, _ = resumed(place, name, "search")
        with sole_driver(folder):
            session, config = _resume_search(experiment, space, settings, method, folder, uri, console, options)
            session = replace(session, register=register, start=start)
            check_register(register, session.experiment)
            return _search(session, config, address, observers, report, profile_start)
    config = SearchConfig.of(**options)
    if config.study is not None and name is None and config.study_name is None:
        raise UsageError("--study must go with the name of the study, got none: give --name or --study-name")
    chosen = chosen_experiment(experiment or "digits_css", settings, method)
    drawn = load_space(config.space) if space is None or isinstance(space, str | Path) else space
    with new_run(place, name, drawn.name) as folder:
        session = _search_session(chosen, drawn, config, folder, uri, console)
        shared = shared_of(folder, session.info)
        if shared is not None:
            check_joining(shared, warm=config.warm_start is not None)
        session = replace(session, register=register, mlflow_experiment=mlflow_experiment, start=start)
        check_register(register, chosen)
        return _search(session, config, address, observers, report, profile_start)


def _search(
    session: Session,
    config: SearchConfig,
    address: str,
    observers: Sequence[TrialObserver],
    report: bool,
    profile_start: bool,
) -> Results:
    """Run a session of a search whose lock is held."""
    console, uri = session.console, session.tracking_uri
    for line in session.experiment.describe():
        console.say(line)
    cpus, shared, local = config.cpus_per_worker, checked_sharing(config.gangs_per_gpu), None
    if address == "local" and shared is not None:
        local = _plan_search(session, config, local_slots(cpus, shared))
    again = go_on_with(session.folder, "tune", uri)
    part = shared_of(session.folder, session.info)
    if part is not None:
        session = replace(session, total=max(0, config.trials - num_of_others(part)))
    session.start.mark("input")
    with (
        going_on(console, again),
        show_start(session.start, console, profile_start),
        ray_session(address, cpus=cores() if address == "local" else None, say=console.say),
    ):
        session.start.mark("ray")
        shared = shared or measured_sharing(session.experiment, cpus or 1, console.say)
        allocation, warm = local or _plan_search(session, config, cluster_slots(cpus, shared))
        session.start.mark("plan")
        write_run(session.folder, session.info)
        assert session.space is not None  # noqa: S101  # a search has one
        plan = Search(
            session.folder,
            session.experiment,
            session.space,
            config,
            allocation,
            warm,
            earlier=session.earlier,
            shared=part,
            start=session.start,
        )
        ends: list[str | None] = []
        results = record_session(
            session, lambda more: ends.append(run_search(replace(plan, observers=[*more, *observers])).reason), report
        )
    if part is not None:
        console.say(standing(part, session.objectives))
    if ends[0] is not None:
        console.say(f"ended early: {ends[0]}; {again}")
    return replace(results, reason=ends[0])


def _search_session(
    experiment: Experiment, space: Space, config: SearchConfig, folder: Path, uri: str, console: Console,
    driver: str | None = None,
) -> Session:  # fmt: skip
    """Check everything that can be checked before anything starts; `driver`: that of a search that goes on."""
    space = fit_space(space, experiment)
    config.grace(experiment)
    check_places(folder, uri)
    experiment.check(config.workers_per_gang)
    overrides = [*extremes(space)]
    experiment.check_data(overrides)
    objectives = config.objectives(experiment.metric)
    known = experiment.metric_names(overrides)
    check_metrics("--objective", [objective.metric for objective in objectives], known)
    check_metrics("--constraint", [constraint.metric for constraint in config.constraints], known)
    request = {"options": config.model_dump(mode="json"), "space": space.text}
    if config.study is not None:
        request["driver"] = driver or uuid4().hex[:12]
    info = RunInfo.of("search", experiment, objectives[0].metric, request)
    return Session(folder, info, experiment, uri, console, objectives, config.trials, space)


def _resume_search(
    experiment: Experiment | str | None,
    space: Space | Path | str | None,
    settings: Settings | None,
    method: str | None,
    folder: Path,
    uri: str,
    console: Console,
    options: Mapping[str, Any],
) -> tuple[Session, SearchConfig]:
    """Return a search that has begun, as it began; refuse where it would not be the same.

    Raises:
        UsageError: there is no such search, or it would be another one now.
    """
    before = read_run(folder, "search")
    config = SearchConfig.of(**before.request["options"]).replaced(**options)
    experiment = experiment_again(experiment, before, settings, method)
    if space is None or isinstance(space, str | Path):
        try:
            space = load_space(config.space)
        except SpaceError:
            if "space" in options:
                raise
            space = written_space(before)  # its file is elsewhere, seen from here
    session = _search_session(experiment, space, config, folder, uri, console, before.request.get("driver"))
    _check_same_search(before, session.info, space.name, folder)
    objective = session.objectives[0]
    history = read_ledger(folder / LEDGER, objective.maximise)
    shared = shared_of(folder, session.info)
    fault = fault_of(folder, folder.name, history, shared)
    if fault is not None and shared is not None:
        raise UsageError(
            f"a search must go on with its study, {fault}: put the database back, or begin a new search, for example "
            f"with --warm-start {folder.name}"
        )
    if fault is not None:
        assert session.space is not None  # noqa: S101  # a search has one
        rebuilt = rebuild(folder, folder.name, session.space, session.objectives, config.constraints)
        console.say(f"{fault}: {rebuilt}")
    history = reconcile(folder, folder.name, objective, history, shared, config.constraints)
    return replace(session, earlier=history), config


def _check_same_search(before: RunInfo, now: RunInfo, space: str, folder: Path) -> None:
    again = f"begin a new search, for example with --warm-start {folder.name}"
    check_same(before, now, again)
    if now.request["space"] != before.request["space"]:
        raise UsageError(
            f"a search must go on with the space it began with, {space} has changed since {folder.name} began "
            f"({folder / 'run.yaml'} holds its text): put it back, or {again}"
        )
    for option in LASTING:
        then, value = before.request["options"].get(option), now.request["options"][option]
        known = option in before.request["options"] or option.startswith("study")  # which older searches had not
        if known and then != value:
            raise UsageError(
                f"a search must go on with --{option.replace('_', '-')} {then}, got {value}: leave the option out, or "
                f"{again}"
            )


def _plan_search(session: Session, config: SearchConfig, slots: Slots) -> tuple[Allocation, Sequence[FrozenTrial]]:
    """Return the gangs of a search on these slots and the trials that it learns from, and announce them.

    Raises:
        UsageError: the gangs do not fit, or the search to learn from is none.
    """
    info, space = session.info, session.space
    assert space is not None  # noqa: S101  # a search has one
    allocation = allocate(slots, config.workers_per_gang, config.gangs, config.trials)
    warm = _warm_start(session, space, config)
    workers = allocation.gangs * allocation.workers_per_gang
    stops = ", ".join(map(str, rungs(info.horizon, config.grace(session.experiment), config.reduction_factor)))
    early = f"asha stops all but 1 in {config.reduction_factor} at steps {stops}" if stops else "asha has no rung"
    session.announce(
        f"{session.folder.name}: {counted(config.trials, 'trial')} of {info.preset} in space {space.name} "
        f"({counted(len(space.paths), 'parameter')}), sampler {config.sampler}",
        f"{allocation.words} = {workers} of {slots.words}; "
        f"horizon {counted(info.horizon, 'step')}, a report every {info.report_every}; "
        f"{early if config.scheduler == 'asha' else config.scheduler}",
    )
    return allocation, warm


def _warm_start(session: Session, space: Space, config: SearchConfig) -> Sequence[FrozenTrial]:
    """Return the trials that a new search learns from, and say how many there are."""
    source = config.warm_start
    if source is None or session.earlier.trials:
        return ()
    named = session.folder.parent / source
    if "/" not in source and not source.startswith("mlflow:") and named.is_dir():
        source = str(named_folder(named.parent, source))
    earlier = earlier_trials(source, space, session.objectives, config.constraints, tracking_uri=session.tracking_uri)
    session.console.say(f"warm start from {config.warm_start}: {earlier.words()}")
    return earlier.trials
