"""The Python API: what the command line does, as functions that return results as data.

    import harness

    results = harness.search("digits_css", space="css_quick", trials=16, name="first")
    results.best.values, results.to_dict()

Every function takes an `Experiment`, or the name of a preset with `settings` by dotted path; writes into
`storage / name`; records in MLflow at `tracking_uri`; starts a Ray of its own, or joins one at `address`, unless a session
is active already. Lines for people go to `console`; without one to stdout, and nowhere with `quiet`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from harness.cluster import Allocation, Slots, allocate, cluster_slots, cores, local_slots, ray_session
from harness.console import Console, make_console
from harness.event_log import LEDGER, History, read_ledger
from harness.experiment import CssExperiment
from harness.gangs.jobs import Jobs, run_jobs
from harness.reporting.results import Results
from harness.run_folder import (
    COMMANDS,
    Kind,
    RunInfo,
    check_same,
    free_folder,
    named_folder,
    read_run,
    sole_driver,
    write_run,
)
from harness.search.config import LASTING, SearchConfig, check_space, rungs
from harness.search.objectives import Objective
from harness.search.run import Search, run_search
from harness.search.study import reconcile
from harness.search.warm_start import earlier_trials
from harness.session import Session, record_session, tracking_uri_of
from harness.trials import Experiment, TrialObserver, TrialState, Value
from search_spaces import Space, SpaceError, load_space
from search_spaces.space import parse_space
from trainers.errors import ConfigError, UsageError

Settings = Mapping[str, Value]


def search(
    experiment: Experiment | str | None = None,
    *,
    space: Space | Path | str | None = None,
    settings: Settings | None = None,
    name: str | None = None,
    resume: bool = False,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    address: str = "local",
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    console: Console | None = None,
    quiet: bool = False,
    **options: Any,
) -> Results:
    """Search a space of hyperparameters: published values first, bad trials stopped early, all of it recorded.

    Ctrl-C ends a search in order and raises KeyboardInterrupt; `resume=True` with its `name` goes on, after a crash too:
    what is not given is as it began.

    Args:
        experiment: what is trained; default: `digits_css`.
        space: a search space, its name or its YAML file; default: `css_quick`.
        observers: told of everything that happens to trials, in the driver.
        report: whether the HTML report is written at the end.
        options: of `SearchConfig`: trials, gangs, scheduler, sampler, seed, max_hours, ...

    Returns:
        All trials, best first; `reason` says why the session ended before all were over, where it did.

    Raises:
        UsageError: it cannot be done as asked; nothing was started.
        GangsBrokenError: the gangs could not go on.
        KeyboardInterrupt: it was interrupted.
    """
    console = console or make_console(quiet)
    if space is not None:
        options["space"] = str(space) if isinstance(space, str | Path) else space.name
    place, uri = Path(storage), tracking_uri_of(tracking_uri)
    if resume:
        session, config = _resume_search(experiment, space, settings, name, place, uri, console, options)
    else:
        config = SearchConfig.of(**options)
        chosen = _experiment(experiment or "digits_css", settings)
        drawn = load_space(config.space) if space is None or isinstance(space, str | Path) else space
        session = _search_session(chosen, drawn, config, free_folder(place, name, drawn.name), uri, console)
    for line in session.experiment.describe():
        console.say(line)
    local = _plan_search(session, config, local_slots()) if address == "local" else None
    with ray_session(address, cpus=cores() if local else None):
        allocation, warm = local or _plan_search(session, config, cluster_slots())
        write_run(session.folder, session.info)
        assert session.space is not None  # noqa: S101  # a search has one
        plan = Search(
            session.folder, session.experiment, session.space, config, allocation, warm, earlier=session.earlier
        )
        ends: list[str | None] = []
        results = record_session(
            session, lambda more: ends.append(run_search(replace(plan, observers=[*more, *observers])).reason), report
        )
    return replace(results, reason=ends[0])


def train(
    experiment: Experiment | str | None = None,
    *,
    settings: Settings | None = None,
    method: str | None = None,
    workers: int | str = 1,
    name: str | None = None,
    resume: bool = False,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    address: str = "local",
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    console: Console | None = None,
    quiet: bool = False,
) -> Results:
    """Train one configuration, recorded like a trial of a search.

    Ctrl-C ends it in order and raises KeyboardInterrupt; `resume=True` with its `name` goes on, after a crash too. Where a
    node is lost, it goes on from its last checkpoint.

    Args:
        experiment: what is trained; default: `digits_css`.
        method: with a preset: `supervised`, `mean_teacher`, `cutmix`, `contrastive`, `css_cross` or `css_mix`.
        workers: processes that train together, N or `"MIN:MAX"`: as many as the cluster holds now, more or fewer later.

    Returns:
        One row; its state says whether the horizon was reached.

    Raises:
        UsageError: it cannot be done as asked; nothing was started.
        GangsBrokenError: the gang could not go on.
        KeyboardInterrupt: it was interrupted.
    """
    console, place, uri = console or make_console(quiet), Path(storage), tracking_uri_of(tracking_uri)
    if resume:
        folder, before = _resumed(place, name, "train")
        same = method is None and settings is None
        experiment = _again(experiment, before, before.settings if same else settings, None if same else method)
    else:
        experiment = _experiment(experiment or "digits_css", settings, method)
        folder = free_folder(place, name, experiment.name)
    info = RunInfo.of("train", experiment, experiment.metric, {})
    sizes = worker_sizes(workers, experiment)
    earlier = History()
    if resume:
        check_same(before, info, "begin another training with another --name")
        earlier = read_ledger(folder / LEDGER)
        if 0 in earlier.trials and earlier.trials[0].state is TrialState.COMPLETE:
            raise UsageError(f"a training that goes on must not be over, {name} is complete: s4 report {name} shows it")
    for line in experiment.describe():
        console.say(line)
    session = Session(folder, info, experiment, uri, console, (Objective(experiment.metric, "max"),), earlier=earlier)
    session.announce(
        f"{folder.name}: {info.preset}, {info.horizon} steps, a report every {info.report_every}, {workers} workers"
    )
    with ray_session(address, cpus=max(cores(), sizes[-1]) if address == "local" else None):
        write_run(folder, info)
        allocation = Allocation(use_gpu=cluster_slots().unit == "GPU", workers_per_gang=sizes[0])

        def work(more: Sequence[TrialObserver]) -> None:
            jobs = Jobs(
                folder, session.experiment, ({},), allocation, sizes, [*more, *observers], earlier, single=True,
                save_interval_s=0.0, hang_timeout_s=None,
            )  # fmt: skip
            if run_jobs(jobs).trials[0].state is TrialState.COMPLETE:
                session.experiment.draw(folder)

        return record_session(session, work, report)


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
    sizes, refused = [], ConfigError("")
    for size in range(least, most + 1):
        try:
            experiment.check(size)
        except ConfigError as error:
            refused = error
        else:
            sizes.append(size)
    if not sizes:
        raise refused
    return tuple(sizes)


def _resumed(storage: Path, name: str | None, kind: Kind) -> tuple[Path, RunInfo]:
    """Return the folder of a run that goes on, and what it began with."""
    if name is None:
        what = COMMANDS[kind][0]
        raise UsageError(f"--resume must come with the --name of {what}, got none: it is that of its folder")
    folder = named_folder(storage, name)
    return folder, read_run(folder, kind)


def _again(
    given: Experiment | str | None, before: RunInfo, settings: Settings | None, method: str | None = None
) -> Experiment:
    """Return the experiment that a run goes on with: the given one, or the one it began with."""
    if isinstance(given, Experiment):
        return given
    if given is None and before.trainer != "css":
        raise UsageError("a run of an own experiment must go on with it, got none: pass the experiment")
    return CssExperiment.of(given or before.preset, before.settings if settings is None else settings, method)


def _experiment(given: Experiment | str, settings: Settings | None, method: str | None = None) -> Experiment:
    """Return the experiment, or that of a preset with settings.

    Raises:
        UsageError: there is no such preset, or settings are given for an experiment that has its own.
    """
    if isinstance(given, str):
        return CssExperiment.of(given, settings, method)
    if settings or method:
        raise UsageError("settings must go with the name of a preset, got an experiment: set them in the experiment")
    return given


def _search_session(
    experiment: Experiment, space: Space, config: SearchConfig, folder: Path, uri: str, console: Console
) -> Session:
    """Check everything that can be checked before anything starts."""
    check_space(space, experiment)
    config.grace(experiment)
    experiment.check(config.workers_per_gang)
    objectives = config.objectives(experiment.metric)
    request = {"options": config.model_dump(mode="json"), "space": space.text}
    info = RunInfo.of("search", experiment, objectives[0].metric, request)
    return Session(folder, info, experiment, uri, console, objectives, config.trials, space)


def _resume_search(
    experiment: Experiment | str | None,
    space: Space | Path | str | None,
    settings: Settings | None,
    name: str | None,
    storage: Path,
    uri: str,
    console: Console,
    options: Mapping[str, Any],
) -> tuple[Session, SearchConfig]:
    """Return a search that has begun, as it began; refuse where it would not be the same.

    Raises:
        UsageError: there is no such search, or it would be another one now.
    """
    folder, before = _resumed(storage, name, "search")
    config = SearchConfig.of(**before.request["options"]).replaced(**options)
    experiment = _again(experiment, before, settings)
    if space is None or isinstance(space, str | Path):
        try:
            space = load_space(config.space)
        except SpaceError:
            if "space" in options:
                raise
            space = parse_space(before.request["space"])  # its file is elsewhere, seen from here
    session = _search_session(experiment, space, config, folder, uri, console)
    _check_same_search(before, session.info, space.name, folder)
    with sole_driver(folder):
        return replace(session, earlier=reconcile(folder, folder.name, session.objectives[0])), config


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
        if option in before.request["options"] and then != value:
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
        f"{session.folder.name}: {config.trials} trials of {info.preset} in space {space.name} ({len(space.paths)} "
        f"parameters), sampler {config.sampler}",
        f"{allocation.gangs} gangs x {config.workers_per_gang} workers = {workers} of {slots.count} {slots.unit}s; "
        f"horizon {info.horizon} steps, a report every {info.report_every}; "
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
        source = str(named)
    earlier = earlier_trials(source, space, session.objectives, config.constraints, tracking_uri=session.tracking_uri)
    session.console.say(f"warm start from {config.warm_start}: {earlier.words()}")
    return earlier.trials
