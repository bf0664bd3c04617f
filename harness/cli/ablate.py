"""`s4 ablate`: variants of a config over paired seeds, and what may be said of their differences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.checks import check_inputs, say_weights
from harness.cli.fixed_runs import AGAIN, FixedRuns, parse_seeds, train_runs
from harness.cli.options import Address, Json, Settings, Storage, TrackingUri, base_config, cores, named_folder
from harness.cli.progress import counting
from harness.cli.slots import cluster_slots, local_slots
from harness.cli.terminal import Terminal, terminal
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.ablation.request import Request
    from harness.ablation.results import Ablation
    from harness.search.ledger import History
    from harness.trials import Trial
    from search_spaces.ablation import AblationPlan

METRIC = "val/miou"
WATCHED = "dev/miou"
"""What training shows of itself: the official validation images are read once, at the end."""


@dataclass(frozen=True)
class Task:
    """An ablation, checked and ready to start or to go on."""

    folder: Path
    request: Request
    metric: str
    tracking_uri: str
    workers: int
    gangs: int | None

    @property
    def runs(self) -> FixedRuns:
        """What is trained."""
        request = self.request
        overrides = [request.overrides(run) for run in request.runs]
        title = f"ablation {request.plan}"
        return FixedRuns(self.folder, title, request.config, WATCHED, overrides, self.workers, self.gangs)


def ablate(
    plan: Annotated[str, typer.Argument(help="What is compared: css_components, methods, ..., or a YAML file.")] = (
        "css_components"
    ),
    preset: Annotated[str | None, typer.Option(help="Base config; default: that of the plan.")] = None,
    seeds: Annotated[str, typer.Option(help="With commas; the same for every variant. More can be added later.")] = (
        "0,1,2"
    ),
    vary_data: Annotated[bool, typer.Option("--vary-data", help="The seed draws the data's splits, too.")] = False,
    metric: Annotated[str, typer.Option(help="What variants are judged by: val/... or dev/...")] = METRIC,
    workers_per_gang: Annotated[int, typer.Option(min=1, help="Processes that train one variant together.")] = 1,
    gangs: Annotated[int | None, typer.Option(min=1, help="Trainings that run at once; default: what fits.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be trained, and stop.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the ablation; default: that of the plan.")] = None,
    settings: Settings = None,
    address: Address = "local",
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Train variants of a config with the same seeds to the same horizon, and compare them pair by pair.

    Variants share the order of the data, the splits and the initialisation of each seed. The official validation images
    are read once, at the end. The same command goes on where an interrupted one stopped; with more --seeds it trains
    only what is missing.
    """
    with terminal(as_json) as speak:
        task = _prepare(
            plan, preset, parse_seeds(seeds), vary_data, metric, workers_per_gang, gangs, name, settings or [],
            storage, tracking_uri,
        )  # fmt: skip
        if dry_run:
            _list(task, speak)
            return
        say_weights(task.request.config, speak)
        found = _run(task, address, speak)
        _show(found, task.folder, speak)
    if found.winner is None:
        raise typer.Exit(1)


def _prepare(
    plan: str,
    preset: str | None,
    seeds: tuple[int, ...],
    vary_data: bool,
    metric: str,
    workers: int,
    gangs: int | None,
    name: str | None,
    words: list[str],
    storage: Path,
    tracking_uri: str | None,
) -> Task:
    """Check everything that can be checked before anything starts."""
    from harness.ablation.request import begun, make_request, with_seeds
    from harness.cli.conduct import tracking_uri_of
    from harness.search.manifest import Origin
    from search_spaces.ablation import load_plan
    from trainers.data.splits import open_splits
    from trainers.overrides import parse_settings

    if not metric.startswith(("val/", "dev/")):
        raise UsageError(f"--metric must be one of an evaluation, val/... or dev/..., got {metric!r}: take val/miou")
    found = load_plan(plan)
    chosen = _preset(found, preset)
    settings = parse_settings(words)
    config = base_config(chosen, settings)
    check_inputs(config, workers)
    origin = Origin(chosen, settings, config, open_splits(config.data).digest)
    request = make_request(found, origin, seeds, vary_data)
    folder = named_folder(storage, name or found.name)
    before = begun(folder, request)
    if before is not None:
        request = with_seeds(before, seeds)
    return Task(folder, request, metric, tracking_uri_of(tracking_uri), workers, gangs)


def _preset(plan: AblationPlan, given: str | None) -> str:
    """Return the preset that is asked for, or else that of the plan.

    Raises:
        UsageError: there is neither.
    """
    chosen = given or plan.preset
    if chosen is None:
        raise UsageError(f"an ablation must have a base config, plan {plan.name} names none: give --preset")
    return chosen


def _list(task: Task, speak: Terminal) -> None:
    """List every run of the ablation, whether it is done, and what its variant sets."""
    from rich import box
    from rich.table import Table

    from harness.search.ledger import LEDGER, read_ledger

    request = task.request
    trials = read_ledger(task.folder / LEDGER).trials if (task.folder / LEDGER).exists() else {}
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in ("run", "variant", "seed", "state", f"differs from {request.base} in"):
        table.add_column(title, overflow="fold")
    rows = []
    for number, run in enumerate(request.runs):
        state = str(trials[number].state) if number in trials else "to train"
        difference = request.difference(run.variant)
        words = ", ".join(f"{path}={value}" for path, value in difference.items()) or "-"
        table.add_row(str(number), run.variant, str(run.seed), state, words)
        rows.append({"run": number, "variant": run.variant, "seed": run.seed, "state": state, "difference": difference})
    speak.console.print(table)
    missing = sum(row["state"] not in ("COMPLETE", "PRUNED", "FAIL") for row in rows)
    steps = request.config.schedule.steps
    speak.say(f"{task.folder.name}: {len(rows)} trainings of {steps} steps, {missing} of them to train")
    speak.result({"name": task.folder.name, "plan": request.plan, "runs": rows, "missing": missing, "steps": steps})


def _run(task: Task, address: str, speak: Terminal) -> Ablation:
    """Train what is missing, look at the validation images, and write down and record what was found."""
    from harness.ablation.record import open_recorder, record_begin, record_outcomes
    from harness.ablation.request import write_request
    from harness.ablation.results import write_results
    from harness.cluster import ray_session
    from harness.search.lock import sole_driver
    from harness.search.objectives import Objective
    from harness.search.resume import open_books

    runs = task.runs
    plan = runs.plan(local_slots()) if address == "local" else None
    with ray_session(address, cpus=cores() if plan else None):
        ready = plan or runs.plan(cluster_slots())
        write_request(task.folder, task.request)
        with sole_driver(task.folder):
            history = open_books(task.folder, task.folder.name, Objective(WATCHED, "max"))
        recorder = open_recorder(task.folder, task.request, task.metric, task.tracking_uri)
        try:
            with recorder:
                record_begin(recorder, task.folder, task.request)
                _announce(task, ready.gangs, history, speak)
                trials = train_runs(runs, ready, history, recorder, speak)
                found = _assess(task, {trial.number: trial for trial in trials}, ready.use_gpu, speak)
                write_results(task.folder, found)
                record_outcomes(recorder, task.folder, found)
        except KeyboardInterrupt:
            speak.say(f"interrupted: {AGAIN}")
            raise
        finally:
            delivery = recorder.close()
            if delivery.note:
                speak.say(f"tracking: {delivery.note}")
    return found


def _announce(task: Task, gangs: int, history: History, speak: Terminal) -> None:
    """Say what is trained, before anything starts."""
    request = task.request
    over = sum(trial.state.over for trial in history.trials.values())
    speak.say(
        f"{task.folder.name}: {len(request.variants)} variants of {request.preset} x {len(request.seeds)} seeds "
        f"({', '.join(map(str, request.seeds))}) = {len(request.runs)} trainings of {request.config.schedule.steps} "
        f"steps, {len(request.runs) - over} to train; {gangs} gangs x {task.workers} workers"
    )
    speak.say(f"results in {task.folder}, records at {task.tracking_uri}")


def _assess(task: Task, trials: dict[int, Trial], use_gpu: bool, speak: Terminal) -> Ablation:
    """Look at the images with every run that is complete, and collect what was found."""
    from harness.ablation.assess import Job, assess_all
    from harness.ablation.results import Ablation, collect
    from harness.checkpoints import checkpoint_folder
    from harness.search.ledger import LEDGER, read_ledger
    from harness.trials import TrialState

    request = task.request
    jobs = {
        number: Job(request.config_of(request.runs[number]), checkpoint_folder(task.folder / "trials", number))
        for number, trial in trials.items()
        if trial.state is TrialState.COMPLETE
    }
    late: dict[int, dict[str, float]] = {}
    with counting(speak.console, "evaluated", len(jobs)) as count:
        for number, metrics in assess_all(jobs, use_gpu):
            late[number] = metrics
            count()
    spent = read_ledger(task.folder / LEDGER)
    outcomes = collect(request, trials, late)
    return Ablation(
        task.folder.name, request, outcomes, task.metric, task.tracking_uri, spent.elapsed_s, spent.device_s
    )


def _show(found: Ablation, folder: Path, speak: Terminal) -> None:
    from harness.ablation.results import to_json
    from harness.ablation.table import lines, to_table

    speak.console.print(to_table(found))
    for line in lines(found):
        speak.say(line)
    speak.result({**to_json(found), "folder": str(folder)})
