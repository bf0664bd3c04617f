"""The session of an ablation: trains what is missing, evaluates, writes down and records the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.checks import check_inputs
from harness.cli.fixed_runs import AGAIN, FixedRuns, train_runs
from harness.cli.options import base_config, cores
from harness.cluster import cluster_slots, local_slots
from harness.console import Console, counting

if TYPE_CHECKING:
    from harness.ablation.request import Request
    from harness.ablation.results import Ablation
    from harness.event_log import History
    from harness.trials import Trial
    from search_spaces.ablation import AblationPlan

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
        return FixedRuns(
            folder=self.folder,
            title=f"ablation {request.plan}",
            config=request.config,
            metric=WATCHED,
            overrides=[request.overrides(run) for run in request.runs],
            labels=[run.label for run in request.runs],
            workers=self.workers,
            gangs=self.gangs,
        )


def prepare(
    plan: AblationPlan,
    preset: str,
    words: list[str],
    seeds: Sequence[int],
    vary_data: bool,
    metric: str,
    folder: Path,
    tracking_uri: str | None,
    workers: int,
    gangs: int | None,
    only: Sequence[str] = (),
) -> Task:
    """Check everything that can be checked before anything starts; what was begun in the folder goes on.

    Args:
        only: variants that are to have the seeds, the base beside them; none: all.
        words: settings of the base config, `path=value`.

    Raises:
        UsageError: one line that says what must hold.
    """
    from harness.ablation.request import begun, make_request, with_seeds
    from harness.cli.conduct import tracking_uri_of
    from harness.search.manifest import Origin
    from trainers.data.splits import open_splits
    from trainers.overrides import parse_settings

    settings = parse_settings(words)
    config = base_config(preset, settings)
    check_inputs(config, workers)
    origin = Origin(preset, settings, config, open_splits(config.data).digest)
    request = make_request(plan, origin, seeds, vary_data, only)
    before = begun(folder, request)
    if before is not None:
        request = with_seeds(before, seeds, only)
    return Task(folder, request, metric, tracking_uri_of(tracking_uri), workers, gangs)


def carry_out(task: Task, address: str, console: Console) -> Ablation:
    """Train what is missing, look at the validation images, and write down and record what was found."""
    done = _finished(task)
    if done is not None:
        console.say(f"{task.folder.name} is finished: nothing to train; more seeds can be asked for")
        return done
    from harness.ablation.request import write_request
    from harness.ablation.results import write_results
    from harness.ablation.tracking import open_recorder, record_begin, record_outcomes
    from harness.cli.conduct import leave_report
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
            history = reconcile(task.folder, task.folder.name, Objective(WATCHED, "max"))
        recorder = open_recorder(task.folder, task.request, task.metric, task.tracking_uri)
        try:
            with recorder:
                record_begin(recorder, task.folder, task.request)
                _announce(task, ready.gangs, history, console)
                trials = train_runs(runs, ready, history, recorder, console)
                found = _evaluate(task, {trial.number: trial for trial in trials}, ready.use_gpu, console)
                write_results(task.folder, found)
                record_outcomes(recorder, task.folder, found)
                page = leave_report(task.folder, recorder, console)
        except KeyboardInterrupt:
            console.say(f"interrupted: {AGAIN}")
            raise
        finally:
            delivery = recorder.close()
            if delivery.note:
                console.say(f"tracking: {delivery.note}")
    if page is not None:
        console.say(f"report: {page}")
    return found


def _finished(task: Task) -> Ablation | None:
    """Return what was found where every run that is asked for is over and was looked at; else none."""
    from harness.ablation.results import RESULTS, read_results

    if not (task.folder / RESULTS).exists():
        return None
    found = read_results(task.folder)
    over = {(run.variant, run.seed) for run in found.outcomes if run.state in ("COMPLETE", "FAIL", "PRUNED")}
    if any((run.variant, run.seed) not in over for run in task.request.runs):
        return None
    return replace(found, metric=task.metric)


def _announce(task: Task, gangs: int, history: History, console: Console) -> None:
    """Say what is trained, before anything starts."""
    request = task.request
    over = sum(trial.state.over for trial in history.trials.values())
    console.say(
        f"{task.folder.name}: {len(request.variants)} variants of {request.preset}, {len(request.seeds)} seeds "
        f"({', '.join(map(str, request.seeds))}): {len(request.runs)} trainings of {request.config.schedule.steps} "
        f"steps, {len(request.runs) - over} to train; {gangs} gangs x {task.workers} workers"
    )
    console.say(f"results in {task.folder}, records at {task.tracking_uri}")


def _evaluate(task: Task, trials: dict[int, Trial], use_gpu: bool, console: Console) -> Ablation:
    """Look at the images with every run that is complete, and collect what was found."""
    from harness.ablation.evaluate import Job, evaluate_all
    from harness.ablation.results import Ablation, collect
    from harness.event_log import LEDGER, read_ledger
    from harness.run_folder import checkpoint_folder
    from harness.trials import TrialState

    request = task.request
    jobs = {
        number: Job(request.config_of(request.runs[number]), checkpoint_folder(task.folder / "trials", number))
        for number, trial in trials.items()
        if trial.state is TrialState.COMPLETE
    }
    late: dict[int, dict[str, float]] = {}
    with counting(console, "evaluated", len(jobs)) as count:
        for number, metrics in evaluate_all(jobs, use_gpu):
            late[number] = metrics
            count()
    spent = read_ledger(task.folder / LEDGER)
    outcomes = collect(request, trials, late)
    return Ablation(
        task.folder.name, request, outcomes, task.metric, task.tracking_uri, spent.elapsed_s, spent.device_s
    )
