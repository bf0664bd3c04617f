"""The Python API: what the command line does, as functions that return results as data.

    import harness

    results = harness.search("digits_css", space="css_quick", trials=16, name="first")
    results.best.values, results.to_dict()

Every function takes an `Experiment`, or the name of a preset with `settings` by dotted path; writes into
`storage / name`; records in MLflow at `tracking_uri`, in `mlflow_experiment`; starts a Ray of its own, or joins one at
`address`, unless a session is active already. Lines for people go to `console`; without one to stdout, and nowhere with
`quiet`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna.trial import FrozenTrial

from harness.ablation.confirm import confirmation
from harness.ablation.request import Request, begun, make_request, with_digests, with_seeds
from harness.ablation.request import Run as PlannedRun
from harness.ablation.results import Ablation
from harness.ablation.run import gather
from harness.ablation.scores import Scores, ablation_of, read_csv, read_mlflow
from harness.cluster import Allocation, Slots, allocate, cluster_slots, cores, local_slots
from harness.connection import ray_session
from harness.console import Console, make_console
from harness.event_log import LEDGER, History, read_ledger, require_operations
from harness.experiment import CssExperiment
from harness.formats import counted
from harness.gangs.jobs import Jobs, run_jobs
from harness.reporting.results import Results, candidates, read_results
from harness.run_folder import (
    COMMANDS,
    Kind,
    RunInfo,
    check_same,
    existing_folder,
    is_new,
    named_folder,
    new_run,
    read_run,
    sole_driver,
    write_run,
)
from harness.session import (
    Session,
    ablate_session,
    go_on_with,
    going_on,
    record_session,
    recorded_to_the_end,
    send_left,
    show_scores,
)
from harness.tracking.stores import EXPERIMENT, OUTBOX, absolute_uri, check_places
from harness.trials import Experiment, TrialObserver, TrialState, Value
from harness.tuning.config import LASTING, SearchConfig, extremes, fit_space, recorded_space, rungs, written_space
from harness.tuning.objectives import Objective, check_metrics
from harness.tuning.run import Search, run_search
from harness.tuning.study import fault_of, rebuild, reconcile
from harness.tuning.warm_start import earlier_trials
from search_spaces import Space, SpaceError, load_space
from search_spaces.ablation import AblationPlan, Variant, load_plan
from trainers.errors import UsageError
from trainers.run import Decision, Run

if TYPE_CHECKING:
    from harness.models.evaluation import Evaluation
    from harness.scaling.report import Scaling

__all__ = [
    "CssExperiment", "Decision", "Experiment", "Run", "ablate", "compare", "confirm", "evaluate", "load_space", "noise",
    "scale", "search", "train",
]  # fmt: skip

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
    mlflow_experiment: str = EXPERIMENT,
    address: str = "local",
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    register: bool = False,
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
        observers: told of everything that happens to trials, in the driver.
        report: whether the HTML report is written at the end.
        register: whether the best teacher becomes the registered model `s4-NAME`, under the alias `champion`.
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
    place, uri = Path(storage), absolute_uri(tracking_uri)
    if resume:
        folder, _ = _resumed(place, name, "search")
        with sole_driver(folder):
            session, config = _resume_search(experiment, space, settings, folder, uri, console, options)
            session = replace(session, register=register)
            check_register(register, session.experiment)
            return _search(session, config, address, observers, report)
    config = SearchConfig.of(**options)
    chosen = _experiment(experiment or "digits_css", settings)
    drawn = load_space(config.space) if space is None or isinstance(space, str | Path) else space
    with new_run(place, name, drawn.name) as folder:
        session = _search_session(chosen, drawn, config, folder, uri, console)
        session = replace(session, register=register, mlflow_experiment=mlflow_experiment)
        check_register(register, chosen)
        return _search(session, config, address, observers, report)


def _search(
    session: Session, config: SearchConfig, address: str, observers: Sequence[TrialObserver], report: bool
) -> Results:
    """Run a session of a search whose lock is held."""
    console, uri = session.console, session.tracking_uri
    for line in session.experiment.describe():
        console.say(line)
    local = _plan_search(session, config, local_slots()) if address == "local" else None
    again = go_on_with(session.folder, "tune", uri)
    with going_on(console, again), ray_session(address, cpus=cores() if local else None, say=console.say):
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
    if ends[0] is not None:
        console.say(f"ended early: {ends[0]}; {again}")
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
    mlflow_experiment: str = EXPERIMENT,
    address: str = "local",
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    register: bool = False,
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

    Returns:
        One row; its state says whether the horizon was reached.

    Raises:
        UsageError: it cannot be done as asked; nothing was started.
        GangsBrokenError: the gang could not go on.
        KeyboardInterrupt: it was interrupted.
    """
    console, place, uri = console or make_console(quiet), Path(storage), absolute_uri(tracking_uri)
    if resume:
        kept, before = _resumed(place, name, "train")
        experiment = _again(experiment, before, settings, method)
    else:
        experiment = _experiment(experiment or "digits_css", settings, method)
    with sole_driver(kept) if resume else new_run(place, name, experiment.name) as folder:
        check_places(folder, uri)
        check_register(register, experiment)
        asked = {} if workers in (1, "1") else {"workers": str(workers)}
        info = RunInfo.of("train", experiment, experiment.metric, asked)
        sizes = worker_sizes(workers, experiment)
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
            mlflow_experiment=mlflow_experiment,
        )  # fmt: skip
        for line in experiment.describe():
            console.say(line)
        session.announce(
            f"{folder.name}: {info.preset}, {counted(info.horizon, 'step')}, a report every {info.report_every}, "
            f"{workers} worker{'' if str(workers) == '1' else 's'}"
        )
        return _train(session, sizes, address, observers, report)


def _train(
    session: Session, sizes: tuple[int, ...], address: str, observers: Sequence[TrialObserver], report: bool
) -> Results:
    """Run a session of a training whose lock is held."""
    folder, console, ends = session.folder, session.console, list[str | None]()
    again = go_on_with(folder, "train", session.tracking_uri)
    with (
        going_on(console, again),
        ray_session(address, cpus=max(cores(), sizes[-1]) if address == "local" else None, say=console.say),
    ):
        write_run(folder, session.info)
        allocation = Allocation(use_gpu=cluster_slots().unit == "GPU", workers_per_gang=sizes[0])

        def work(more: Sequence[TrialObserver]) -> None:
            jobs = Jobs(
                folder, session.experiment, ({},), allocation, sizes, [*more, *observers], session.earlier, single=True,
                save_interval_s=0.0, hang_timeout_s=None,
            )  # fmt: skip
            end = run_jobs(jobs)
            ends.append(end.reason)
            if end.trials[0].state is TrialState.COMPLETE:
                session.experiment.draw(folder)

        results = record_session(session, work, report)
    if ends[0] is not None:
        console.say(f"ended early: {ends[0]}; {again}")
    return replace(results, reason=ends[0])


def check_register(register: bool, experiment: Experiment) -> None:
    """Refuse to register what no other process could load.

    Raises:
        UsageError: it is asked for, and the experiment is not one of this project's trainer.
    """
    if register and experiment.trainer != "css":
        raise UsageError(
            f"--register must go with a preset of s4, got the experiment {experiment.name}: register its model by hand"
        )


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


def _resumed(storage: Path, name: str | None, kind: Kind) -> tuple[Path, RunInfo]:
    """Return the folder of a run that goes on, and what it began with."""
    if name is None:
        what = COMMANDS[kind][0]
        raise UsageError(f"--resume must come with the --name of {what}, got none: it is that of its folder")
    folder = named_folder(storage, name)
    info = read_run(folder, kind)
    require_operations(folder / OUTBOX)
    return folder, info


def _again(
    given: Experiment | str | None, before: RunInfo, settings: Settings | None, method: str | None = None
) -> Experiment:
    """Return the experiment that a run goes on with: the given one, or the one it began with."""
    if isinstance(given, Experiment):
        return given
    if given is None and before.trainer != "css":
        raise UsageError("a run of an own experiment must go on with it, got none: pass the experiment")
    kept = before.settings if settings is None and method is None else settings
    return CssExperiment.of(given or before.preset, kept, method)


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
    space = fit_space(space, experiment)
    config.grace(experiment)
    check_places(folder, uri)
    experiment.check(config.workers_per_gang)
    objectives = config.objectives(experiment.metric)
    known = experiment.metric_names([*extremes(space)])
    check_metrics("--objective", [objective.metric for objective in objectives], known)
    check_metrics("--constraint", [constraint.metric for constraint in config.constraints], known)
    request = {"options": config.model_dump(mode="json"), "space": space.text}
    info = RunInfo.of("search", experiment, objectives[0].metric, request)
    return Session(folder, info, experiment, uri, console, objectives, config.trials, space)


def _resume_search(
    experiment: Experiment | str | None,
    space: Space | Path | str | None,
    settings: Settings | None,
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
    experiment = _again(experiment, before, settings)
    if space is None or isinstance(space, str | Path):
        try:
            space = load_space(config.space)
        except SpaceError:
            if "space" in options:
                raise
            space = written_space(before)  # its file is elsewhere, seen from here
    session = _search_session(experiment, space, config, folder, uri, console)
    _check_same_search(before, session.info, space.name, folder)
    fault = fault_of(folder, folder.name, read_ledger(folder / LEDGER))
    if fault is not None:
        assert session.space is not None  # noqa: S101  # a search has one
        rebuilt = rebuild(folder, folder.name, session.space, session.objectives, config.constraints)
        console.say(f"{fault}: {rebuilt}")
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
        f"{session.folder.name}: {counted(config.trials, 'trial')} of {info.preset} in space {space.name} "
        f"({counted(len(space.paths), 'parameter')}), sampler {config.sampler}",
        f"{allocation.words} = {workers} of {counted(slots.count, slots.unit)}; "
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


def ablate(
    experiment: Experiment | str | None = None,
    *,
    plan: AblationPlan | Mapping[str, Settings] | Path | str = "css_components",
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] = (),
    vary_data: bool = False,
    metric: str | None = None,
    settings: Settings | None = None,
    name: str | None = None,
    workers: int = 1,
    gangs: int | None = None,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    mlflow_experiment: str = EXPERIMENT,
    address: str = "local",
    dry_run: bool = False,
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    register: bool = False,
    console: Console | None = None,
    quiet: bool = False,
) -> Ablation:
    """Train variants of a config with the same seeds to the same horizon, and compare them pair by pair.

    The same call goes on where an interrupted one stopped; with more seeds it trains only what is missing.

    Args:
        experiment: the base; default: the preset of the plan.
        plan: an ablation plan, its name, its YAML file, or overrides by the names of variants, the base first.
        only: variants that are to have the seeds, the base beside them; none: all.
        vary_data: whether the seed draws the data's splits, too.
        metric: what variants are judged by; default: `val/miou`, or the metric of an experiment without evaluation.
        dry_run: return what would be trained, and train nothing; of a new ablation no data are read.

    Raises:
        UsageError: it cannot be done as asked; nothing was started.
        UnfinishedError: it ended before all were over.
        KeyboardInterrupt: it was interrupted.
    """
    console, uri = console or make_console(quiet), absolute_uri(tracking_uri)
    if isinstance(plan, str | Path):
        plan = load_plan(plan)
    elif isinstance(plan, Mapping):
        variants = tuple(Variant(variant, dict(overrides)) for variant, overrides in plan.items())
        plan = AblationPlan("ablation", "given in Python", None, variants[0].name, variants, "")
    if experiment is None and plan.preset is None:
        raise UsageError(f"an ablation must have a base config, plan {plan.name} names none: give --preset")
    chosen = _experiment(experiment or plan.preset or "", settings)
    check_register(register, chosen)
    if not dry_run:
        chosen.check(workers)
        chosen.check_evaluation()
    judged = metric or ("val/miou" if chosen.trainer == "css" else chosen.metric)
    if not judged.startswith(("val/", "dev/")):
        raise UsageError(f"--metric must be one of an evaluation, val/... or dev/..., got {judged!r}: take val/miou")
    folder = named_folder(Path(storage), plan.name if name is None else name)
    counted = dry_run and is_new(folder)  # of which the data need not be here
    info = RunInfo.of("ablation", chosen, chosen.metric, {}, digest="" if counted else None)
    asked = make_request(plan, info, chosen, seeds, vary_data, only)
    overrides = [asked.overrides(PlannedRun(variant.name, asked.seeds[0])) for variant in asked.tried]
    known = [name for name in chosen.metric_names(overrides, late=True) if name.startswith(("val/", "dev/"))]
    check_metrics("--metric", [judged], known)

    def with_what_began() -> Request:
        before = begun(folder, asked)
        request = asked if before is None else with_seeds(before, seeds, only)
        return request if counted else with_digests(request, chosen)

    request = with_what_began()  # refused before anything is written
    if dry_run:
        return gather(folder, request, judged, uri, {})
    check_places(folder, uri)
    with sole_driver(folder):
        return ablate_session(
            folder, with_what_began(), chosen, judged, uri, console, workers=workers, gangs=gangs,
            address=address, observers=observers, report=report, mlflow_experiment=mlflow_experiment, register=register,
        )  # fmt: skip


def noise(
    experiment: Experiment | str = "digits_css",
    *,
    seeds: int | Sequence[int] = 5,
    settings: Settings | None = None,
    name: str | None = None,
    **options: Any,
) -> Ablation:
    """Train one config with several seeds; `harness.ablation.noise.Noise` tells their spread.

    Args:
        seeds: at least two, or how many from 0 on.
        options: of `ablate`: vary_data, workers, gangs, storage, tracking_uri, address, console, quiet, ...

    Raises:
        UsageError, UnfinishedError, KeyboardInterrupt: as `ablate`.
    """
    chosen = _experiment(experiment, settings)
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    if len(set(seeds)) < 2:
        raise UsageError(f"a spread must be of two seeds at least, got {len(set(seeds))}: give more --seeds")
    plan = AblationPlan(
        f"noise of {chosen.name}", "the config as it is", chosen.name, chosen.name, (Variant(chosen.name, {}),), ""
    )
    return ablate(chosen, plan=plan, seeds=seeds, name=f"noise-{chosen.name}" if name is None else name, **options)


def compare(
    scores: Scores | Path | str | None = None,
    *,
    experiment: str | None = None,
    metric: str | None = None,
    base: str | None = None,
    variant: str | None = None,
    seed: str | None = None,
    out: Path | str | None = None,
    tracking_uri: str | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> Ablation:
    """Compare scores of variants over paired seeds, whoever trained them; higher is better.

    Args:
        scores: by variant and seed, `{"plain": {0: 0.61, 1: 0.63}, ...}`, or a CSV file with the columns `variant`,
            `seed` and `metric`.
        experiment: of MLflow, whose finished runs are taken in place of `scores`.
        metric: name of the score; default: `score`, or the only column that is left.
        base: what others are compared with; default: the first variant.
        variant: tag or param of MLflow's runs that names the variant; default: `s4.variant`, `variant` or `method`.
        seed: the same of the seed; default: `s4.seed` or `seed`.
        out: folder for the report; none: there is none.

    Raises:
        UsageError: the scores cannot be read or compared.
    """
    if (scores is None) == (experiment is None):
        given = "none" if scores is None else "both"
        raise UsageError(f"scores must come from a file or from an --experiment of MLflow, got {given}: give one")
    if experiment is not None and metric is None:
        raise UsageError("--experiment must come with --metric, got it without: name the metric to compare")
    name = experiment or "scores"
    if experiment is not None and metric is not None:
        scores = read_mlflow(absolute_uri(tracking_uri), experiment, metric, variant, seed)
    elif isinstance(scores, str | Path):
        name = Path(scores).stem
        scores, metric = read_csv(Path(scores), metric)
    assert isinstance(scores, Mapping)  # noqa: S101  # one of the three it is
    ablation = ablation_of(name, scores, metric or "score", base)
    show_scores(ablation, None if out is None else Path(out), console or make_console(quiet))
    return ablation


def confirm(
    search: str,
    *,
    experiment: Experiment | None = None,
    top: int = 3,
    seeds: Sequence[int] = (0, 1, 2),
    vary_data: bool = False,
    workers: int = 1,
    gangs: int | None = None,
    name: str | None = None,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    mlflow_experiment: str = EXPERIMENT,
    address: str = "local",
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    console: Console | None = None,
    quiet: bool = False,
) -> Ablation:
    """Train a search's best configurations and those that it started from, with paired seeds, to the full horizon.

    It started from its baseline and, where the space has them, values of its own. The configuration with the
    highest lower bound on dev, and these two, are then evaluated on the validation images, once.
    The same call goes on where an interrupted one stopped.

    Args:
        search: its name.
        experiment: that of the search, where it was an own one.
        top: how many of the best configurations.

    Raises:
        UsageError, UnfinishedError, KeyboardInterrupt: as `ablate`.
    """
    console, uri, place = console or make_console(quiet), absolute_uri(tracking_uri), Path(storage)
    source = existing_folder(place, search)
    before = read_run(source, "search")
    results = read_results(source)
    rows, ours = candidates(results, top), results.starts.get("ours")
    if ours is not None and ours.config_hash not in {row.config_hash for row in (results.baseline, *rows) if row}:
        rows.append(ours)
    if not before.metric.startswith("dev/"):
        raise UsageError(
            f"a confirmed search must maximise a metric dev/..., {search} has {before.metric}: confirm another"
        )
    chosen = _again(experiment, before, None)
    space = recorded_space(before)
    for row in rows:
        config_hash = chosen.resolve({**space.fixed, **row.values})[1]
        if config_hash != row.config_hash:
            raise UsageError(
                f"trial {row.number} of {search} must be the same now as then, its config had hash {row.config_hash} "
                f"and has {config_hash}: confirm with the version of s4 that searched"
            )
    info = RunInfo.of("confirm", chosen, before.metric, {})
    baseline = results.baseline.best if results.baseline else None
    trials = [(row.number, row.best, {**space.fixed, **row.values}) for row in rows]
    request = confirmation(
        search, info, chosen, space, baseline, trials, seeds, vary_data, None if ours is None else ours.number
    )
    chosen.check(workers)
    chosen.check_evaluation()
    if info.data_digest != before.data_digest:
        raise UsageError(
            f"the data must be that of {search}, its splits had digest {before.data_digest} and now have "
            f"{info.data_digest}: put the files back"
        )
    folder = named_folder(place, f"{search}-confirm" if name is None else name)
    request = with_digests(begun(folder, request) or request, chosen)
    check_places(folder, uri)
    with sole_driver(folder):
        return ablate_session(
            folder, request, chosen, "val/" + before.metric.partition("/")[2], uri, console, workers=workers,
            gangs=gangs, address=address, observers=observers, report=report, mlflow_experiment=mlflow_experiment,
        )  # fmt: skip


def evaluate(
    run: str,
    *,
    split: Literal["val", "dev"] = "val",
    folder: Path | None = None,
    out: Path | None = None,
    pictures: int | None = 8,
    record: bool = True,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Score the teacher of a training, a trial or a registered model on the validation images, dev images or a folder.

    Args:
        run: NAME of a training or a search (its best trial), NAME/TRIAL, an MLflow run's id or name, or
            `models:/NAME@ALIAS`.
        pictures: images of which masks and overlays are written; none: no pictures at all.
        record: whether metrics and files go to the model's MLflow run.

    Raises:
        UsageError: no such model, images or folder.
    """
    console = console or make_console(quiet)
    from harness.models.evaluate_model import evaluate_model

    return evaluate_model(run, Path(storage), tracking_uri, console, split, folder, out, pictures, record)


def scale(
    experiment: CssExperiment | str = "digits_css",
    *,
    workers: Sequence[int] = (),
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

    request = make_request(chosen, mode, tuple(workers), steps, blocks, warmup, repeats)
    return run_scaling(
        request, Path(storage), name, address, tracking_uri, console or make_console(quiet), mlflow_experiment
    )
