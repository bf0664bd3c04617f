"""Checks of a search's records against each other: the ledger, Optuna's study, MLflow's runs, the checkpoints.

The ledger is the truth: it is written first. A search that no driver runs must have nothing RUNNING anywhere.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.console import Console
from harness.event_log import LEDGER, History, pending, read_ledger
from harness.run_folder import LATEST, checkpoint_folder, read_run, sole_driver
from harness.tables import Cell, Column, Table
from harness.tracking.recorder import STATUS, STOP_REASON, replay
from harness.tracking.stores import EXPERIMENT, OUTBOX, asking, check_places, connect_client, find_runs
from harness.trials import Trial, TrialState
from harness.tuning.objectives import Objective, parse_objectives
from harness.tuning.study import JOURNAL, OF_OPTUNA, num_imported, open_study, reconcile
from trainers.checkpoint import load_checkpoint
from trainers.errors import DataError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Repair = Callable[[], object]


@dataclass(frozen=True)
class Finding:
    """A disagreement."""

    trial: int | None
    """Which trial; none: the search as a whole."""
    what: str
    """What is wrong, in a few words."""
    repair: Repair | None = None
    """Puts it right; none: nobody can."""

    def __str__(self) -> str:
        return self.what if self.trial is None else f"trial {self.trial}: {self.what}"


@dataclass(frozen=True)
class Records:
    """A search that no driver runs, as its checks read it."""

    folder: Path
    objective: Objective
    tracking_uri: str
    history: History
    """Of the ledger."""


def check_and_repair(folder: Path, tracking_uri: str, fix: bool, console: Console) -> bool:
    """Show what disagrees about a search, repair what can be where `fix`; return whether all agrees in the end.

    Raises:
        UsageError: there is no such search, a driver runs it, or its ledger cannot be read.
    """
    name, info = folder.name, read_run(folder, "search")
    check_places(folder, tracking_uri)
    objective = parse_objectives(info.request["options"].get("objective") or [info.metric])[0]
    with sole_driver(folder):
        findings, repaired = diagnose(folder, objective, tracking_uri), list[str]()
        if fix:
            before = findings
            for finding in before:
                if finding.repair is not None:
                    finding.repair()
            findings = diagnose(folder, objective, tracking_uri)
            left = {str(finding) for finding in findings}
            repaired = [str(finding) for finding in before if str(finding) not in left]
        trials = len(read_ledger(folder / LEDGER).trials)
    for line in repaired:
        console.say(f"repaired: {line}")
    repairable = sum(finding.repair is not None for finding in findings)
    if not findings:
        console.say(f"{name}: ledger, Optuna, MLflow and checkpoints agree on {trials} trials")
    else:
        console.table(to_table(findings))
        if repairable and not fix:
            console.say(f"{repairable} of {len(findings)} can be repaired: s4 doctor {name} --fix")
    rows = [{"trial": item.trial, "what": item.what, "repairable": item.repair is not None} for item in findings]
    console.result({"name": name, "trials": trials, "repaired": repaired, "findings": rows})
    return not findings


def to_table(findings: list[Finding]) -> Table:
    """Return the findings as a table."""
    columns = [Column("trial", align="right"), Column("what disagrees"), Column("can be repaired")]
    rows: list[list[Cell]] = [[item.trial, item.what, "no" if item.repair is None else "yes"] for item in findings]
    return Table("findings", "", columns, rows)


def diagnose(folder: Path, objective: Objective, tracking_uri: str) -> list[Finding]:
    """Return everything that disagrees about a search that no driver runs.

    Raises:
        UsageError: the ledger cannot be read, or MLflow cannot be reached.
    """
    records = Records(folder, objective, tracking_uri, read_ledger(folder / LEDGER))
    with asking(tracking_uri):
        findings = [finding for check in CHECKS for finding in check(records)]
    return sorted(findings, key=lambda finding: (finding.trial is not None, finding.trial or 0))


def check_study(records: Records) -> Iterator[Finding]:
    """Compare the ledger with Optuna's study."""
    folder, trials = records.folder, records.history.trials

    repair = partial(reconcile, folder, folder.name, records.objective)
    study = open_study(folder, folder.name)
    if study is None:
        if trials:
            yield Finding(None, f"the ledger holds {len(trials)} trials, Optuna's {JOURNAL} is missing")
        return
    first = num_imported(study)
    states = {trial.number - first: trial.state for trial in study.get_trials(deepcopy=False)[first:]}
    for number, trial in sorted(trials.items()):
        state = states.get(number)
        if state is None:
            yield Finding(number, f"{trial.state} in the ledger, unknown to Optuna")
        elif state.is_finished() != trial.state.over or (trial.state.over and OF_OPTUNA[state] is not trial.state):
            yield Finding(number, f"{trial.state} in the ledger, {state.name} in Optuna", repair)
        elif state.name == "RUNNING":
            yield Finding(number, "RUNNING in Optuna, and no driver runs the search", repair)
    for number, state in sorted(states.items()):
        if number not in trials and state.name == "RUNNING":
            yield Finding(number, "RUNNING in Optuna, and never started", repair)


def check_outbox(records: Records) -> Iterator[Finding]:
    """Look for records that did not reach MLflow."""
    outbox = records.folder / OUTBOX
    left = pending(outbox)
    if left:
        yield Finding(None, f"{left} records did not reach MLflow", lambda: replay(outbox, records.tracking_uri))


def check_runs(records: Records) -> Iterator[Finding]:
    """Compare the ledger with MLflow's runs."""
    client = connect_client(records.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    condition = f"tags.`s4.search` = '{records.folder.name}'"
    by_trial: dict[int, list[Run]] = defaultdict(list)
    for run in find_runs(client, experiment.experiment_id, condition) if experiment is not None else ():
        if run.data.tags.get("s4.kind") == "trial":
            by_trial[int(run.data.tags["s4.trial"])].append(run)
        elif run.info.status == "RUNNING":
            what = "the parent run is RUNNING in MLflow, and no driver runs it"
            yield Finding(None, what, _end_run(client, run, "KILLED"))
    for number, trial in sorted(records.history.trials.items()):
        runs = by_trial.pop(number, [])
        if not runs:
            yield Finding(number, f"{trial.state} in the ledger, without a run in MLflow")
            continue
        best, *others = sorted(runs, key=lambda run: -len(run.data.metrics))
        for other in others:
            delete = partial(client.delete_run, other.info.run_id)
            yield Finding(number, f"has a second run in MLflow, {other.info.run_id}", delete)
        expected = STATUS[trial.state]
        if best.info.status != expected:
            what = f"{trial.state} in the ledger, {best.info.status} in MLflow, where {expected} is meant"
            yield Finding(number, what, _end_run(client, best, expected, trial))
    for number in sorted(by_trial):
        yield Finding(number, "has a run in MLflow, unknown to the ledger")


def check_checkpoints(records: Records) -> Iterator[Finding]:
    """Look for checkpoints that are missing, cannot be read, or are not wanted."""
    root, trials = records.folder / "trials", records.history.trials
    for number, trial in sorted(trials.items()):
        folder = checkpoint_folder(root, number)
        latest = folder / LATEST
        if trial.state in (TrialState.PRUNED, TrialState.FAIL) and folder.exists():
            yield Finding(number, f"{trial.state}, and its checkpoint is still there", partial(shutil.rmtree, folder))
        elif trial.state is TrialState.INTERRUPTED and trial.step and not latest.exists():
            yield Finding(number, f"interrupted at step {trial.step} without a checkpoint: it will begin anew")
        elif latest.exists():
            try:
                load_checkpoint(latest)
            except DataError as error:
                aside = latest.with_name(f"{latest.name}.unreadable")
                yield Finding(number, str(error), partial(latest.rename, aside))
    for folder in sorted(root.glob("[0-9]*")):
        if folder.is_dir() and int(folder.name) not in trials:
            yield Finding(int(folder.name), "has a checkpoint, unknown to the ledger", partial(shutil.rmtree, folder))


CHECKS: tuple[Callable[[Records], Iterator[Finding]], ...] = (check_study, check_outbox, check_runs, check_checkpoints)


def _end_run(client: MlflowClient, run: Run, status: str, trial: Trial | None = None) -> Repair:
    def repair() -> None:
        if trial is not None:
            client.set_tag(run.info.run_id, "s4.state", str(trial.state))
            client.set_tag(run.info.run_id, "s4.stop_reason", STOP_REASON[trial.state])
        client.set_terminated(run.info.run_id, status)

    return repair
