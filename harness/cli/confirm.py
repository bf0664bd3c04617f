"""`s4 confirm`: whether the best of a search is better than the published baseline, or was lucky."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from harness.cli.checks import check_inputs
from harness.cli.fixed_runs import AGAIN, FixedRuns, parse_seeds, train_runs
from harness.cli.options import Address, Json, Storage, TrackingUri, cores, named_folder
from harness.cli.report import unknown_name
from harness.cluster import cluster_slots, local_slots
from harness.confirm.report import (
    Confirmation,
    collect,
    lines,
    read_confirmation,
    to_csv,
    to_json,
    to_markdown,
    to_table,
    write_confirmation,
)
from harness.confirm.request import (
    Request,
    as_plain,
    candidates,
    check_begun,
    check_seeds,
    make_request,
    write_request,
)
from harness.confirm.validate import validate_all
from harness.console import Console, open_console
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.event_log import History
    from harness.search.manifest import Manifest
    from harness.search.run import SearchPlan
    from harness.tracking.recorder import MlflowRecorder


@dataclass(frozen=True)
class Task:
    """A confirmation, checked and ready to start or to go on."""

    folder: Path
    request: Request
    manifest: Manifest
    tracking_uri: str
    workers: int
    gangs: int | None

    @property
    def runs(self) -> FixedRuns:
        """What is trained."""
        request = self.request
        return FixedRuns(
            folder=self.folder,
            title=f"confirmation of {request.search}",
            config=self.manifest.config,
            metric=request.metric,
            overrides=[request.overrides(run) for run in range(len(request.runs))],
            labels=[f"{configuration.label}, seed {seed}" for configuration, seed in request.runs],
            workers=self.workers,
            gangs=self.gangs,
        )


def confirm(
    search: Annotated[str, typer.Argument(help="The search, by the name that s4 tune gave or was given.")],
    top: Annotated[int, typer.Option(min=1, help="How many of the search's best configurations.")] = 3,
    seeds: Annotated[str, typer.Option(help="At least two, with commas; the same for every configuration.")] = "0,1,2",
    vary_data: Annotated[bool, typer.Option("--vary-data", help="The seed draws the data's splits, too.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train one configuration together.")] = 1,
    gangs: Annotated[int | None, typer.Option(min=1, help="Trainings that run at once; default: what fits.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the confirmation; default: SEARCH-confirm.")] = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Train a search's best configurations and the published baseline again, with paired seeds, to the full horizon.

    The one with the highest lower bound on dev, and the baseline, are then evaluated on the validation images, once.
    The same command goes on where an interrupted one stopped, and shows what a finished one found.
    """
    with open_console(as_json) as console:
        task = _prepare(search, top, parse_seeds(seeds), vary_data, workers, gangs, name, storage, tracking_uri)
        found = read_confirmation(task.folder)
        if found is None or not found.validated:
            found = _run(task, found, address, console)
        _show(found, task.folder, console)
    if found.chosen is None:
        raise typer.Exit(1)


def _prepare(
    search: str,
    top: int,
    seeds: tuple[int, ...],
    vary_data: bool,
    workers: int,
    gangs: int | None,
    name: str | None,
    storage: Path,
    tracking_uri: str | None,
) -> Task:
    """Check everything that can be checked before anything starts."""
    from harness.cli.conduct import tracking_uri_of
    from harness.reporting.results import read_results
    from harness.search.manifest import read_manifest
    from trainers.data.splits import open_splits
    from trainers.overrides import apply_overrides

    source = named_folder(storage, search)
    if not source.is_dir():
        raise UsageError(unknown_name(storage, search))
    check_seeds(seeds)
    results = read_results(source)
    candidates(results, top)
    manifest = read_manifest(source)
    if not manifest.metric.startswith("dev/"):
        raise UsageError(
            f"a confirmed search must maximise a metric dev/..., {search} has {manifest.metric}: confirm another"
        )
    request = make_request(results, manifest, top, seeds, vary_data)
    for run in range(len(request.runs)):
        apply_overrides(manifest.config, request.overrides(run))
    check_inputs(manifest.config, workers)
    digest = open_splits(manifest.config.data).digest
    if digest != manifest.data_digest:
        raise UsageError(
            f"the data must be that of {search}, its splits had digest {manifest.data_digest} and now have {digest}: "
            "put the files back"
        )
    folder = named_folder(storage, name or f"{search}-confirm")
    check_begun(folder, request)
    return Task(folder, request, manifest, tracking_uri_of(tracking_uri), workers, gangs)


def _run(task: Task, found: Confirmation | None, address: str, console: Console) -> Confirmation:
    """Train, choose, write the choice down, and only then look at the validation images."""
    from harness.cluster import ray_session
    from harness.run_folder import sole_driver
    from harness.search.objectives import Objective
    from harness.search.study import reconcile

    runs = task.runs
    plan = runs.plan(local_slots()) if address == "local" else None
    with ray_session(address, cpus=cores() if plan else None):
        ready = plan or runs.plan(cluster_slots())
        write_request(task.folder, task.request)
        with sole_driver(task.folder):
            history = reconcile(task.folder, task.folder.name, Objective(task.request.metric, "max"))
        recorder = _recorder(task)
        try:
            with recorder:
                recorder.artifact("request.yaml", yaml.safe_dump(as_plain(task.request), sort_keys=False))
                if found is None:
                    found = _train(task, ready, history, recorder, console)
                    write_confirmation(task.folder, found)
                found = _validate(task, found, recorder, ready.use_gpu)
                write_confirmation(task.folder, found)
                recorder.artifact("confirm.csv", to_csv(found))
                recorder.artifact("confirm.md", to_markdown(found))
        except KeyboardInterrupt:
            console.say(f"interrupted: {AGAIN}")
            raise
        finally:
            delivery = recorder.close()
            if delivery.note:
                console.say(f"tracking: {delivery.note}")
    return found


def _recorder(task: Task) -> MlflowRecorder:
    from harness.tracking.recorder import MlflowRecorder
    from harness.tracking.stores import EXPERIMENT, OUTBOX

    request = task.request
    tags = {"s4.preset": request.preset, "s4.confirms": request.search, "s4.folder": str(task.folder)}
    outbox = task.folder / OUTBOX
    return MlflowRecorder(
        task.tracking_uri, EXPERIMENT, "confirm", task.folder.name, tags, outbox, metric=request.metric
    )


def _train(task: Task, plan: SearchPlan, history: History, recorder: MlflowRecorder, console: Console) -> Confirmation:
    """Train every run of the request that is not over."""
    request = task.request
    console.say(
        f"{task.folder.name}: {len(request.configurations)} configurations of {request.search} x {len(request.seeds)} "
        f"seeds = {plan.trials} trainings of {task.manifest.config.schedule.steps} steps; {plan.gangs} gangs x "
        f"{plan.workers_per_gang} workers"
    )
    console.say(f"results in {task.folder}, records at {task.tracking_uri}")
    trials = train_runs(task.runs, plan, history, recorder, console)
    return collect(task.folder.name, request, trials, task.tracking_uri)


def _validate(task: Task, found: Confirmation, recorder: MlflowRecorder, use_gpu: bool) -> Confirmation:
    """Evaluate the chosen configuration and the baseline on the validation images, and record it with their runs."""
    from harness.run_folder import LATEST, checkpoint_folder
    from harness.trials import Trial
    from trainers.overrides import apply_overrides

    wanted = found.to_validate() if found.chosen is not None else []
    runs = {run: item for run, item in enumerate(task.request.runs) if item[0].label in wanted}
    jobs = {
        run: (
            apply_overrides(task.manifest.config, task.request.overrides(run)),
            checkpoint_folder(task.folder / "trials", run) / LATEST,
        )
        for run in runs
    }
    horizon = float(task.manifest.config.schedule.steps)
    scores: dict[str, dict[int, float]] = {label: {} for label in wanted}
    for run, metrics in validate_all(jobs, use_gpu).items():
        configuration, seed = runs[run]
        scores[configuration.label][seed] = metrics[found.val_metric]
        recorder.on_report(Trial(run, {}, {}, metrics={**metrics, "step": horizon}))
    return found.with_val(scores)


def _show(found: Confirmation, folder: Path, console: Console) -> None:
    console.rich.print(to_table(found))
    for line in lines(found):
        console.say(line)
    console.result({**to_json(found), "folder": str(folder)})
