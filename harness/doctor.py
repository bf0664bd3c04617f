"""Checks of a run's records against each other: `run.yaml`, ledger, Optuna's study, MLflow's runs, the files.

The ledger is the truth: it is written first. A run that no driver is at must have nothing RUNNING anywhere.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.console import Console
from harness.experiment import CssExperiment
from harness.formats import counted, one_line
from harness.ledger import LEDGER, History, read_ledger
from harness.one_driver import LOCK, HeldError, Lock
from harness.run_folder import LATEST, TRIALS, RunInfo, checkpoint_folder, existing_folder, read_run, run_names
from harness.tables import Cell, Column, Table
from harness.tracking.outbox import mend_outbox, pending, require_operations
from harness.tracking.recorder import STATUS, STOP_REASON, replay
from harness.tracking.stores import OUTBOX, PARENT, experiment_of, find_runs, open_store, search_id_of
from harness.trials import Trial, TrialState
from harness.tuning.config import SearchConfig, recorded_space
from harness.tuning.marks import num_imported, own_trials
from harness.tuning.objectives import Objective, parse_objectives
from harness.tuning.shared import Shared, shared_of
from harness.tuning.study import LOCK as OPTUNAS_LOCK
from harness.tuning.study import OF_OPTUNA, fault_of, open_study, rebuild, reconcile
from trainers.checkpoint import load_checkpoint
from trainers.config import TrainConfig
from trainers.drafts import left_over, sweep
from trainers.errors import DataError, UsageError

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient
    from mlflow.entities import Run

Repair = Callable[[], object]


@dataclass(frozen=True)
class Finding:
    """A disagreement."""

    trial: int | None
    """Which trial; none: the run as a whole."""
    what: str
    """What is wrong, in a few words."""
    repair: Repair | None = None
    """Puts it right; none: nobody can."""

    def __str__(self) -> str:
        return self.what if self.trial is None else f"trial {self.trial}: {self.what}"


@dataclass(frozen=True)
class Records:
    """A run that no driver is at, as its checks read it."""

    folder: Path
    info: RunInfo
    tracking_uri: str
    history: History
    """Of the ledger."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is sought, the primary one first."""
        asked = self.info.request.get("options", {}).get("objective")
        return tuple(parse_objectives(asked or [self.info.metric]))


@dataclass(frozen=True)
class Checkup:
    """What was found out about a run."""

    name: str
    driver: str | None = None
    """The process that is at it; nothing was checked then. None: no process is."""
    trials: int = 0
    findings: list[Finding] = field(default_factory=list)
    """What disagrees, after the repairs."""
    repaired: list[str] = field(default_factory=list)

    def to_dict(self) -> Mapping[str, Any]:
        """Return it as JSON-able values."""
        rows = [{"trial": item.trial, "what": item.what, "repairable": bool(item.repair)} for item in self.findings]
        return {
            "name": self.name, "in_progress": self.driver, "trials": self.trials, "repaired": self.repaired,
            "findings": rows,
        }  # fmt: skip


def check_and_repair(storage: Path, name: str | None, tracking_uri: str, fix: bool, console: Console) -> bool:
    """Show what disagrees about a run, none: every run of the storage, and repair what can be where `fix`.

    A run that is in progress is said to be, and not touched.

    Returns:
        Whether all agrees in the end.

    Raises:
        UsageError: there is no such run, or its `run.yaml` or its ledger cannot be read; of every run that is shown.
    """
    if name is not None:
        checkup = check_up(existing_folder(storage, name), tracking_uri, fix)
        show(checkup, console)
        console.result(checkup.to_dict())
        return not checkup.findings
    checkups = []
    for each in run_names(storage):
        try:
            checkup = check_up(storage.resolve() / each, tracking_uri, fix)
        except UsageError as error:
            checkup = Checkup(each, findings=[Finding(None, str(error))])
        show(checkup, console)
        checkups.append(checkup)
    console.result({"runs": [checkup.to_dict() for checkup in checkups]})
    sick = sum(bool(checkup.findings) for checkup in checkups)
    console.say(f"{counted(len(checkups), 'run')} in {storage.resolve()}, {sick} with something that disagrees")
    return not sick


def check_up(folder: Path, tracking_uri: str, fix: bool) -> Checkup:
    """Check a run, and repair what can be where `fix`.

    Raises:
        UsageError: nothing began in the folder, or its ledger cannot be read.
    """
    info = read_run(folder)
    try:
        with unattended(folder):
            findings, repaired = diagnose(folder, info, tracking_uri, fix), list[str]()
            if fix:
                before, findings = findings, diagnose(folder, info, tracking_uri)
                left = {str(finding) for finding in findings}
                repaired = [str(finding) for finding in before if str(finding) not in left]
            return Checkup(folder.name, None, len(read_ledger(folder / LEDGER).trials), findings, repaired)
    except HeldError as error:
        return Checkup(folder.name, str(error))


@contextmanager
def unattended(folder: Path) -> Iterator[None]:
    """Hold a run that no driver trains and no process records.

    Raises:
        HeldError: one does; the message says which.
    """
    driver = Lock(folder / LOCK)
    try:
        Lock(folder / f"{OUTBOX}.lock").release()  # a session holds it from beginning to end, and trains in between
        yield
    finally:
        driver.release()


def show(checkup: Checkup, console: Console) -> None:
    """Write what was found out about a run."""
    name, findings = checkup.name, checkup.findings
    if checkup.driver is not None:
        console.say(f"{name}: in progress, {checkup.driver} is at it; not checked")
        return
    for line in checkup.repaired:
        console.say(f"repaired: {line}")
    if not findings:
        console.say(f"{name}: all records agree, {counted(checkup.trials, 'trial')}")
        return
    console.table(to_table(name, findings))
    repairable = sum(finding.repair is not None for finding in findings)
    if repairable and not checkup.repaired:
        console.say(f"{repairable} of {len(findings)} can be repaired: s4 doctor {name} --fix")


def to_table(name: str, findings: list[Finding]) -> Table:
    """Return the findings as a table."""
    columns = [Column("trial", align="right"), Column("what disagrees", prose=True), Column("can be repaired")]
    rows: list[list[Cell]] = [[item.trial, item.what, "no" if item.repair is None else "yes"] for item in findings]
    return Table("findings", f"{name}:", columns, rows)


def diagnose(folder: Path, info: RunInfo, tracking_uri: str, fix: bool = False) -> list[Finding]:
    """Return everything that disagrees about a run that no driver is at.

    With `fix` what one check finds is repaired before the next one looks: what the outbox still holds may end runs.

    Raises:
        UsageError: the ledger cannot be read.
    """
    findings, history = list[Finding](), read_ledger(folder / LEDGER)
    for check in CHECKS:
        found = list(check(Records(folder, info, tracking_uri, history)))
        findings += found
        repairs = [finding.repair for finding in found if finding.repair is not None] if fix else []
        for repair in repairs:
            repair()
        if repairs:
            history = read_ledger(folder / LEDGER)
    return sorted(findings, key=lambda finding: (finding.trial is not None, finding.trial or 0))


def check_config(records: Records) -> Iterator[Finding]:
    """Compare the configs of the ledger's trials with what `run.yaml` makes of their overrides."""
    info = records.info
    if info.trainer != "css":
        return
    try:
        experiment = CssExperiment(TrainConfig.model_validate(info.config), info.preset)
        if experiment.base.hash != info.config_hash:
            what = f"the config in run.yaml has hash {experiment.base.hash}, and {info.config_hash} is said beside it"
            yield Finding(None, what)
            return
        trials = [trial for _, trial in sorted(records.history.trials.items()) if trial.config_hash]
        others = [trial.number for trial in trials if experiment.resolve(trial.overrides)[1] != trial.config_hash]
    except ValueError as error:
        yield Finding(None, f"the config in run.yaml is refused: {one_line(error)}")
        return
    if others:
        listed = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        what = f"run.yaml makes other configs of trials {listed} than they were trained with: put the old file back"
        yield Finding(None, what)


def check_study(records: Records) -> Iterator[Finding]:
    """Compare the ledger with Optuna's study."""
    folder = records.folder
    if records.info.kind != "search":
        return
    if (folder / OPTUNAS_LOCK).is_symlink():
        yield Finding(None, f"{OPTUNAS_LOCK} was left by a killed driver", (folder / OPTUNAS_LOCK).unlink)
    shared = shared_of(folder, records.info)
    try:
        fault = fault_of(folder, folder.name, records.history, shared)
        if fault is None:
            yield from _check_states(records, shared, open_study(folder, folder.name, shared))
        elif shared is None:
            yield Finding(None, f"{fault}; the ledger is safe, it can be rebuilt from it", partial(_rebuild, records))
        else:
            yield Finding(None, f"{fault}; the ledger is safe, put a copy of the database back")
    except UsageError as error:  # a database that cannot be reached
        yield Finding(None, str(error))


def _check_states(records: Records, shared: Shared | None, study: optuna.Study | None) -> Iterator[Finding]:
    """Compare the states of trials; in a shared study those that go on stay RUNNING."""
    folder, trials = records.folder, records.history.trials
    if study is None:
        return
    constraints = SearchConfig.of(**records.info.request["options"]).constraints
    repair = partial(reconcile, folder, folder.name, records.objectives[0], shared=shared, constraints=constraints)
    first, own = num_imported(study), own_trials(study)
    states = {trial.number - first: trial.state for trial in own if shared is None or shared.trains(trial)}
    for number, trial in sorted(trials.items()):
        state = states[number]
        if state.is_finished() != trial.state.over or (trial.state.over and OF_OPTUNA[state] is not trial.state):
            yield Finding(number, f"{trial.state} in the ledger, {state.name} in Optuna", repair)
        elif state.name == "RUNNING" and shared is None:
            yield Finding(number, "RUNNING in Optuna, and no driver runs the search", repair)
    for number, state in sorted(states.items()):
        if number not in trials and state.name == "RUNNING" and shared is None:
            yield Finding(number, "RUNNING in Optuna, and never started", repair)


def _rebuild(records: Records) -> None:
    space, config = recorded_space(records.info), SearchConfig.of(**records.info.request["options"])
    rebuild(records.folder, records.folder.name, space, records.objectives, config.constraints)


def check_outbox(records: Records) -> Iterator[Finding]:
    """Look for records that did not reach MLflow."""
    outbox = records.folder / OUTBOX
    try:
        require_operations(outbox)
    except UsageError as error:
        yield Finding(None, str(error), partial(mend_outbox, outbox))
        return
    left = pending(outbox)
    if left:
        yield Finding(
            None, f"{counted(left, 'record')} did not reach MLflow", lambda: replay(outbox, records.tracking_uri)
        )


def check_runs(records: Records) -> Iterator[Finding]:
    """Compare the ledger with MLflow's runs."""
    try:
        client = open_store(records.tracking_uri)
        runs = runs_of(client, records.folder) if client is not None else []
    except Exception as error:  # whatever a store that is broken or away makes MLflow raise
        yield Finding(None, f"{records.tracking_uri} cannot be asked: {one_line(error, 300)}")
        return
    if client is None or not runs:
        if records.history.trials:
            what = f"{records.tracking_uri} has no run of it: was it recorded elsewhere (--tracking-uri)?"
            yield Finding(None, what)
        return
    by_trial: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        tags = run.data.tags
        if tags.get("s4.kind") in ("trial", "train") and "s4.trial" in tags:
            by_trial[int(tags["s4.trial"])].append(run)
        elif run.info.status == "RUNNING":
            who = f"run {run.info.run_name}" if PARENT in tags else "the parent run"
            yield Finding(None, f"{who} is RUNNING in MLflow, and no driver is at it", _end_run(client, run, "KILLED"))
    yield from _check_trials(records, client, by_trial)


def _check_trials(records: Records, client: MlflowClient, by_trial: dict[int, list[Run]]) -> Iterator[Finding]:
    for number, trial in sorted(records.history.trials.items()):
        of_trial = by_trial.pop(number, [])
        if not of_trial:
            yield Finding(number, f"{trial.state} in the ledger, without a run in MLflow")
            continue
        best, *others = sorted(of_trial, key=lambda run: -len(run.data.metrics))
        for other in others:
            delete = partial(client.delete_run, other.info.run_id) if search_id_of(records.folder) else None
            yield Finding(number, f"has a second run in MLflow, {other.info.run_id}", delete)
        expected = STATUS[trial.state]
        lost = records.info.kind == "train" and trial.state is TrialState.INTERRUPTED  # FAILED where its driver did
        if best.info.status != expected and not (lost and best.info.status == "FAILED"):
            what = f"{trial.state} in the ledger, {best.info.status} in MLflow, where {expected} is meant"
            yield Finding(number, what, _end_run(client, best, expected, trial))
    for number in sorted(by_trial):
        yield Finding(number, "has a run in MLflow, unknown to the ledger")


def runs_of(client: MlflowClient, folder: Path) -> list[Run]:
    """Return what MLflow has of a run; by name where its outbox, which says what it is tagged with, is gone."""
    experiment, search_id = client.get_experiment_by_name(experiment_of(folder)), search_id_of(folder)
    condition = f"tags.`s4.search_id` = '{search_id}'" if search_id else f"tags.`s4.search` = '{folder.name}'"
    return list(find_runs(client, experiment.experiment_id, condition)) if experiment is not None else []


def check_checkpoints(records: Records) -> Iterator[Finding]:
    """Look for checkpoints that are missing, cannot be read, or are not wanted."""
    root, trials, single = records.folder / TRIALS, records.history.trials, records.info.kind == "train"
    for number, trial in sorted(trials.items()):
        folder = records.folder if single else checkpoint_folder(root, number)
        latest = folder / LATEST
        if trial.state in (TrialState.PRUNED, TrialState.FAIL) and folder.exists() and not single:
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


def check_drafts(records: Records) -> Iterator[Finding]:
    """Look for files that were being written when their writer was killed."""
    drafts = left_over(records.folder)
    if drafts:
        what = f"{counted(len(drafts), 'draft')} of killed writers, {drafts[0].relative_to(records.folder)}"
        yield Finding(None, what + (" among them" if len(drafts) > 1 else ""), partial(sweep, records.folder))


CHECKS: tuple[Callable[[Records], Iterator[Finding]], ...] = (
    check_config, check_study, check_outbox, check_runs, check_checkpoints, check_drafts,
)  # fmt: skip


def _end_run(client: MlflowClient, run: Run, status: str, trial: Trial | None = None) -> Repair:
    def repair() -> None:
        if trial is not None:
            client.set_tag(run.info.run_id, "s4.state", str(trial.state))
            client.set_tag(run.info.run_id, "s4.stop_reason", STOP_REASON[trial.state])
        client.set_terminated(run.info.run_id, status)

    return repair
