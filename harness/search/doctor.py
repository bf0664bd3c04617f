"""Compares the books of a search: the ledger, Optuna's study, MLflow's runs, the checkpoints; says what disagrees.

The ledger is the truth: it is written first. A search that no driver runs must have nothing RUNNING anywhere.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.event_log import LEDGER, History, pending, read_ledger
from harness.run_folder import LATEST, checkpoint_folder
from harness.search.objectives import Objective
from harness.search.study import JOURNAL, OF_OPTUNA, num_imported, open_study, reconcile
from harness.tracking.recorder import STATUS, STOP_REASON, replay
from harness.tracking.stores import OUTBOX
from harness.tracking.writer import find_runs
from harness.trials import Trial, TrialState

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class Finding:
    """Something that disagrees."""

    trial: int | None
    """Which trial; none: the search as a whole."""
    what: str
    """What is wrong, in a few words."""
    mend: Callable[[], object] | None = None
    """Puts it right; none: nobody can."""


def examine(folder: Path, name: str, objective: Objective, tracking_uri: str) -> list[Finding]:
    """Return everything that disagrees about a search that no driver runs.

    Raises:
        UsageError: the ledger cannot be read.
    """
    history = read_ledger(folder / LEDGER)
    findings = [
        *study_findings(folder, name, objective, history),
        *outbox_findings(folder, tracking_uri),
        *run_findings(name, tracking_uri, history),
        *checkpoint_findings(folder / "trials", history.trials.values()),
    ]
    return sorted(findings, key=lambda finding: (finding.trial is not None, finding.trial or 0))


def study_findings(folder: Path, name: str, objective: Objective, history: History) -> Iterator[Finding]:
    """Compare the ledger with Optuna's study."""

    def mend() -> History:
        return reconcile(folder, name, objective)

    study = open_study(folder, name)
    if study is None:
        if history.trials:
            yield Finding(None, f"the ledger holds {len(history.trials)} trials, Optuna's {JOURNAL} is missing")
        return
    first = num_imported(study)
    theirs = {trial.number - first: trial.state for trial in study.get_trials(deepcopy=False)[first:]}
    for number, trial in sorted(history.trials.items()):
        state = theirs.get(number)
        if state is None:
            yield Finding(number, f"{trial.state} in the ledger, unknown to Optuna")
        elif state.is_finished() != trial.state.over or (trial.state.over and OF_OPTUNA[state] is not trial.state):
            yield Finding(number, f"{trial.state} in the ledger, {state.name} in Optuna", mend)
        elif state.name == "RUNNING":
            yield Finding(number, "RUNNING in Optuna, and no driver runs the search", mend)
    for number, state in sorted(theirs.items()):
        if number not in history.trials and state.name == "RUNNING":
            yield Finding(number, "RUNNING in Optuna, and never started", mend)


def outbox_findings(folder: Path, tracking_uri: str) -> Iterator[Finding]:
    """Look for records that did not reach MLflow."""
    left = pending(folder / OUTBOX)
    if left:
        yield Finding(None, f"{left} records did not reach MLflow", lambda: replay(folder / OUTBOX, tracking_uri))


def run_findings(name: str, tracking_uri: str, history: History) -> Iterator[Finding]:
    """Compare the ledger with MLflow's runs."""
    from harness.tracking.sender import connect_client

    client = connect_client(tracking_uri)
    by_trial: dict[int, list[Run]] = defaultdict(list)
    for run in _runs(client, name):
        if run.data.tags.get("s4.kind") == "trial":
            by_trial[int(run.data.tags["s4.trial"])].append(run)
        elif run.info.status == "RUNNING":
            yield Finding(
                None, "the parent run is RUNNING in MLflow, and no driver runs it", _ending(client, run, "KILLED")
            )
    for number, trial in sorted(history.trials.items()):
        runs = by_trial.pop(number, [])
        if not runs:
            yield Finding(number, f"{trial.state} in the ledger, without a run in MLflow")
            continue
        best, *others = sorted(runs, key=lambda run: -len(run.data.metrics))
        for other in others:
            yield Finding(number, f"has a second run in MLflow, {other.info.run_id}", _deletion(client, other))
        expected = STATUS[trial.state]
        if best.info.status != expected:
            what = f"{trial.state} in the ledger, {best.info.status} in MLflow, where {expected} is meant"
            yield Finding(number, what, _ending(client, best, expected, trial))
    for number in sorted(by_trial):
        yield Finding(number, "has a run in MLflow, unknown to the ledger")


def checkpoint_findings(root: Path, trials: Iterable[Trial]) -> Iterator[Finding]:
    """Look for checkpoints that are missing, cannot be read, or are not wanted."""
    from trainers.checkpoint import load_checkpoint
    from trainers.errors import DataError

    known = {trial.number: trial for trial in trials}
    for number, trial in sorted(known.items()):
        folder = checkpoint_folder(root, number)
        latest = folder / LATEST
        if trial.state in (TrialState.PRUNED, TrialState.FAIL) and folder.exists():
            yield Finding(number, f"{trial.state}, and its checkpoint is still there", _removal(folder))
        elif trial.state is TrialState.INTERRUPTED and trial.step and not latest.exists():
            yield Finding(number, f"interrupted at step {trial.step} without a checkpoint: it will begin anew")
        elif latest.exists():
            try:
                load_checkpoint(latest)
            except DataError as error:
                yield Finding(number, str(error), _setting_aside(latest))
    for folder in sorted(root.glob("[0-9]*")):
        if folder.is_dir() and int(folder.name) not in known:
            yield Finding(int(folder.name), "has a checkpoint, unknown to the ledger", _removal(folder))


def _runs(client: MlflowClient, name: str) -> Iterator[Run]:
    experiment = client.get_experiment_by_name("s4")
    if experiment is not None:
        yield from find_runs(client, experiment.experiment_id, f"tags.`s4.search` = '{name}'")


def _ending(client: MlflowClient, run: Run, status: str, trial: Trial | None = None) -> Callable[[], object]:
    def mend() -> None:
        if trial is not None:
            client.set_tag(run.info.run_id, "s4.state", str(trial.state))
            client.set_tag(run.info.run_id, "s4.stop_reason", STOP_REASON[trial.state])
        client.set_terminated(run.info.run_id, status)

    return mend


def _deletion(client: MlflowClient, run: Run) -> Callable[[], object]:
    return lambda: client.delete_run(run.info.run_id)


def _removal(folder: Path) -> Callable[[], object]:
    return lambda: shutil.rmtree(folder)


def _setting_aside(path: Path) -> Callable[[], object]:
    return lambda: path.rename(path.with_name(f"{path.name}.unreadable"))
