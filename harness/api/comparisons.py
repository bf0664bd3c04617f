"""Ablations, confirmations of searches, the spread of seeds, and scores that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.ablation.confirm import confirmation
from harness.ablation.request import Request, begun, make_request, with_digests, with_seeds
from harness.ablation.request import Run as PlannedRun
from harness.ablation.results import Ablation
from harness.ablation.run import gather
from harness.ablation.scores import Scores, ablation_of, read_csv, read_mlflow
from harness.api.experiments import Settings, check_register, chosen_experiment, experiment_again
from harness.console import Console, make_console
from harness.one_driver import is_new, sole_driver
from harness.reporting.results import candidates, read_results
from harness.run_folder import LATE_SPLITS, RunInfo, existing_folder, named_folder, read_run
from harness.session import ablate_session
from harness.showing import show_scores
from harness.start import Start
from harness.tracking.stores import EXPERIMENT, absolute_uri, check_places
from harness.trials import Experiment, TrialObserver
from harness.tuning.config import recorded_space
from harness.tuning.objectives import check_metrics
from search_spaces.ablation import AblationPlan, Variant, load_plan
from trainers.errors import UsageError

EVALUATIONS = tuple(f"{split}/" for split in (*LATE_SPLITS, "dev"))
"""Beginnings of the names of metrics that variants can be judged by."""


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
    cpus_per_worker: int | None = None,
    gangs: int | None = None,
    gangs_per_gpu: int | str = 1,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    mlflow_experiment: str = EXPERIMENT,
    address: str = "local",
    dry_run: bool = False,
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    register: bool = False,
    profile_start: bool = False,
    command_began: float | None = None,
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
        profile_start, command_began: as of `search`.

    Raises:
        UsageError: it cannot be done as asked; nothing was started.
        UnfinishedError: it ended before all were over.
        KeyboardInterrupt: it was interrupted.
    """
    console, uri, start = console or make_console(quiet), absolute_uri(tracking_uri), Start.since(command_began)
    if isinstance(plan, str | Path):
        plan = load_plan(plan)
    elif isinstance(plan, Mapping):
        variants = tuple(Variant(variant, dict(overrides)) for variant, overrides in plan.items())
        plan = AblationPlan("ablation", "given in Python", None, variants[0].name, variants, "")
    if experiment is None and plan.preset is None:
        raise UsageError(f"an ablation must have a base config, plan {plan.name} names none: give --preset")
    chosen = chosen_experiment(experiment or plan.preset or "", settings)
    check_register(register, chosen)
    if not dry_run:
        chosen.check(workers)
        chosen.check_evaluation()
    judged = metric or ("val/miou" if chosen.trainer == "css" else chosen.metric)
    if not judged.startswith(EVALUATIONS):
        must = "--metric must be one of an evaluation, val/..., test/... or dev/..."
        raise UsageError(f"{must}, got {judged!r}: take val/miou")
    folder = named_folder(Path(storage), plan.name if name is None else name)
    counted = dry_run and is_new(folder)  # of which the data need not be here
    info = RunInfo.of("ablation", chosen, chosen.metric, {}, digest="" if counted else None)
    asked = make_request(plan, info, chosen, seeds, vary_data, only)
    overrides = [asked.overrides(PlannedRun(variant.name, asked.seeds[0])) for variant in asked.tried]
    known = [name for name in chosen.metric_names(overrides, late=True) if name.startswith(EVALUATIONS)]
    check_metrics("--metric", [judged], known)

    def with_what_began() -> Request:
        before = begun(folder, asked)
        request = asked if before is None else with_seeds(before, seeds, only)
        return request if counted else with_digests(request, chosen)

    request = with_what_began()  # refused before anything is written
    if dry_run:
        return gather(folder, request, judged, uri, {})
    chosen.check_data(overrides)
    check_places(folder, uri)
    with sole_driver(folder):
        return ablate_session(
            folder, with_what_began(), chosen, judged, uri, console, workers=workers, cpus=cpus_per_worker,
            gangs=gangs, gangs_per_gpu=gangs_per_gpu,
            address=address, observers=observers, report=report, mlflow_experiment=mlflow_experiment, register=register,
            start=start, profile_start=profile_start,
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
        options: of `ablate`: vary_data, workers, cpus_per_worker, gangs, storage, tracking_uri, address, quiet, ...

    Raises:
        UsageError, UnfinishedError, KeyboardInterrupt: as `ablate`.
    """
    chosen = chosen_experiment(experiment, settings)
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
    cpus_per_worker: int | None = None,
    gangs: int | None = None,
    gangs_per_gpu: int | str = 1,
    name: str | None = None,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    mlflow_experiment: str = EXPERIMENT,
    address: str = "local",
    observers: Sequence[TrialObserver] = (),
    report: bool = True,
    profile_start: bool = False,
    command_began: float | None = None,
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
        profile_start, command_began: as of `search`.

    Raises:
        UsageError, UnfinishedError, KeyboardInterrupt: as `ablate`.
    """
    console, start = console or make_console(quiet), Start.since(command_began)
    uri, place = absolute_uri(tracking_uri), Path(storage)
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
    chosen = experiment_again(experiment, before, None)
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
            cpus=cpus_per_worker, gangs=gangs, gangs_per_gpu=gangs_per_gpu, address=address, observers=observers,
            report=report,
            mlflow_experiment=mlflow_experiment, start=start, profile_start=profile_start,
        )  # fmt: skip
