"""The recorder: an observer of trials that leaves a parent run with one child a trial in MLflow.

Observing returns at once: an operation is appended to the outbox, and the sender's thread applies it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from harness.console import Console
from harness.ledger import LEDGER, read_ledger
from harness.run_folder import RunInfo, read_run
from harness.tracking.limits import (
    NAME_LENGTH,
    TAG_LENGTH,
    clean_name,
    clean_step,
    clean_tags,
    clean_value,
    finite,
    flat_params,
)
from harness.tracking.outbox import Operation, Outbox, OutboxState, stamped
from harness.tracking.run_logger import RunLogger
from harness.tracking.sender import Apply, Sender
from harness.tracking.source import source_tags
from harness.tracking.stores import (
    EXPERIMENT,
    OUTBOX,
    absolute_uri,
    artifact_location,
    check_places,
    connect_client,
    silence,
)
from harness.trials import INTERRUPTED, Experiment, Trial, TrialState, Value
from trainers.errors import UsageError

Status = Literal["FINISHED", "FAILED", "KILLED"]
STATUS: Mapping[TrialState, Status] = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
    TrialState.INTERRUPTED: "KILLED",
}
FIRST_STEP = "time/first_step_unix"
BOOKKEEPING = frozenset({"step", "finished", FIRST_STEP})
"""Reported, but no metrics: the step is where metrics are logged, `finished` becomes the run's status, the time of the
first step, which does not change, a tag."""
PUT_OFF_S = 15.0
"""How long what is recorded at a run's beginning waits for a first report: MLflow's import takes two seconds of CPU."""
CLOSE_REASON: Mapping[Status, str] = {"FINISHED": "all done", "FAILED": "driver failed", "KILLED": INTERRUPTED}
STOP_REASON = {
    TrialState.COMPLETE: "horizon",
    TrialState.PRUNED: "scheduler",
    TrialState.FAIL: "error",
    TrialState.INTERRUPTED: INTERRUPTED,
}


class Delivery(NamedTuple):
    """Operations at close: applied, still in the outbox only, refused by MLflow; and a line where not all arrived."""

    applied: int
    pending: int
    rejected: int
    note: str | None


class MlflowRecorder(RunLogger):
    """A `TrialObserver`; close it, or use it as a context manager, and no run is left RUNNING.

    `kind` is `search`, `confirm`, `scale` or `ablation` (a parent run and a child a trial; an ablation's trials are its
    variants with their seeds, and summaries stand beside them) or `train` (trial 0 is the run itself).
    An outbox that exists already is continued: what it still holds is applied first, and the same runs are resumed.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        kind: Literal["search", "train", "confirm", "scale", "ablation"],
        name: str,
        tags: Mapping[str, str],
        outbox: Path,
        *,
        metric: str = "dev/miou",
        maximise: bool = True,
        params: Mapping[str, object] | None = None,
        trial_tags: Callable[[Trial], Mapping[str, str]] | None = None,
        trial_name: Callable[[Trial], str] | None = None,
        written: Callable[[], object] = lambda: None,
    ) -> None:
        """Open or continue the record.

        Args:
            tags: of all runs.
            params: of the parent: what was asked for.
            trial_tags: what a trial's run is tagged with besides.
            trial_name: what a trial's run is called, when it is created; none: `trial-007`.
            written: called in the sender's thread each time that MLflow has taken what waited.
        """
        uri = absolute_uri(tracking_uri)
        self._metric, self._name = metric, name
        self._leaf = clean_name(metric).replace("/", "_")
        self._tags = clean_tags({**tags, **source_tags(), "s4.search": name})
        self._maximise, self._trial_tags = maximise, trial_tags
        self._trial_name = trial_name or (lambda trial: f"trial-{trial.number:03d}")
        self._overrides: dict[int, dict[str, Value]] = {}
        self._delivery: Delivery | None = None
        self._outbox = Outbox(outbox)
        self._state = OutboxState.read(self._outbox)
        header = self._state.opening or {
            "experiment": clean_value(experiment, NAME_LENGTH),
            "artifact_location": artifact_location(uri),
            "kind": kind,
            "name": clean_value(name, NAME_LENGTH),
            "search_id": uuid.uuid4().hex[:12],
            "tags": {**self._tags, "s4.kind": kind, "s4.state": str(TrialState.RUNNING)},
            "params": flat_params(params or {}),
        }
        now = stamped("open")
        self._began, self._kind = header.get("time", now["time"]), header["kind"]
        header = {**header, **now}
        self._reported = threading.Event()
        self._sender = _start_sender(self._outbox, uri, header, written, self._reported)
        self._send(header)

    def on_start(self, trial: Trial) -> None:
        """Create or resume the trial's run, with the resolved config as its params."""
        config: Mapping[str, Any] = trial.config or trial.overrides
        tags = {
            **self._tags,
            "s4.kind": "train" if self._kind == "train" else "trial",
            "s4.trial": str(trial.number),
            "s4.config_hash": trial.config_hash,
            "s4.seed": trial.config.get("seed"),
            "s4.state": str(TrialState.RUNNING),
            **(self._trial_tags(trial) if self._trial_tags else {}),
        }
        name = clean_value(self._trial_name(trial), NAME_LENGTH)
        self._log("start", trial.number, name=name, params=flat_params(config), tags=clean_tags(tags))
        self._show_change(trial)

    def on_report(self, trial: Trial) -> None:
        """Log the report's finite metrics at its optimizer step, and how many were not finite."""
        metrics, dropped = finite({name: value for name, value in trial.metrics.items() if name not in BOOKKEEPING})
        if dropped:
            metrics["nonfinite"] = float(dropped)
        self._log("report", trial.number, step=clean_step(trial.step), metrics=metrics)
        self._reported.set()

    def on_end(self, trial: Trial) -> None:
        """End the trial's run as its state says, with what tables of runs show: the best value, and when it was."""
        metrics = {}
        if "value" in trial.best:
            metrics = {f"best/{self._leaf}": trial.best["value"]}
        status, tags = STATUS[trial.state], {"s4.state": str(trial.state), "s4.stop_reason": STOP_REASON[trial.state]}
        if "step" in trial.best:
            tags["s4.best_step"] = str(int(trial.best["step"]))
        if FIRST_STEP in trial.metrics:
            tags["s4.first_step_unix"] = str(trial.metrics[FIRST_STEP])
        if trial.state is TrialState.PRUNED and trial.error:
            tags["s4.stop_reason"] = "health"
        if trial.error and trial.error != INTERRUPTED:
            tags["s4.error"] = clean_value(trial.error, TAG_LENGTH, keep_end=True)
        # At step 0 MLflow draws a bar, at a later one a line of one point.
        self._end(status, tags, trial=trial.number, step=0, metrics=finite(metrics)[0])
        self._reported.set()
        self._show_best(trial)

    def catch_up(self, trials: Iterable[Trial]) -> None:
        """Log what the ledger knows of trials and an earlier driver did not get to record: a last report, an end."""
        for trial in trials:
            if trial.number in self._state.open_trials:
                if trial.metrics and trial.step > self._state.steps.get(trial.number, -1):
                    self.on_report(trial)
                if trial.state.over:
                    self.on_end(trial)
            self._show_best(trial)

    def system(self, node: str, reading: Mapping[str, float]) -> None:
        """Log what a node is busy with on the search's run (its page *System metrics*); steps are ten seconds each."""
        step = (stamped("report")["time"] - self._began) // 10_000
        self.metrics({f"system/{node}/{name}": value for name, value in reading.items()}, step)

    def close(self, status: Status = "FINISHED", reason: str | None = None, timeout_s: float = 30.0) -> Delivery:
        """End every run that is still open, wait at most `timeout_s` for MLflow, and say what is left in the outbox."""
        self._reported.set()
        if self._delivery is None:
            why = clean_value(reason or CLOSE_REASON[status], TAG_LENGTH)
            lost: Status = "FAILED" if self._kind == "train" and status == "FAILED" else "KILLED"
            for number in sorted(self._state.open_trials):
                self._end(lost, {"s4.state": "INTERRUPTED", "s4.stop_reason": why}, trial=number)
            if self._kind == "train" and self._state.status is not None:
                self._end(
                    self._state.status, {}
                )  # the training's own run has ended so; with what came later it is done
            else:
                self._end(status, {"s4.state": status, "s4.stop_reason": why})
            self._delivery = _finish(self._sender, self._outbox, timeout_s)
        return self._delivery

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("KILLED")
        else:
            self.close("FAILED", f"{type(error).__name__}: {error}")

    def _show_change(self, trial: Trial) -> None:
        """Log as metrics what a scheduler changed while a trial runs: params of a run cannot be changed in MLflow."""
        before, now = self._overrides.get(trial.number), dict(trial.overrides)
        self._overrides[trial.number] = now
        if before is None or before == now:
            return
        numbers = {f"param/{path}": float(value) for path, value in now.items() if isinstance(value, int | float)}
        self.metrics(numbers, trial.step, trial.number)

    def _show_best(self, trial: Trial) -> None:
        """Show on a search's parent how the best completed trial improves with the number of trials that ended."""
        value = finite(trial.best)[0].get("value")
        if self._kind != "search" or trial.state is not TrialState.COMPLETE or value is None:
            return
        best = self._state.best
        if best is None or (value > best if self._maximise else value < best):
            metrics = {f"best/{self._leaf}": value, "best/trial": float(trial.number)}
            self._log("report", None, step=len(self._state.ended), metrics=metrics, best=value)

    def _end(self, status: str, tags: Mapping[str, str], trial: int | None = None, **more: object) -> None:
        self._log("end", trial, status=status, tags=dict(tags), **more)

    def _send(self, operation: Operation) -> None:
        self._state.follow(operation)
        self._sender.send(operation, self._outbox.append(operation))


def close_books(folder: Path, tracking_uri: str, maximise: bool) -> Delivery:
    """Send what MLflow lacks of a run, and end what a driver that was killed left open there. The lock must be held.

    Raises:
        UsageError: nothing was recorded, or the ledger cannot be read.
    """
    info = read_run(folder)
    recorder = MlflowRecorder(
        tracking_uri, EXPERIMENT, info.kind, folder.name, {}, folder / OUTBOX, metric=info.metric, maximise=maximise
    )
    recorder.catch_up(read_ledger(folder / LEDGER, maximise).trials.values())
    return recorder.close("KILLED", "its driver was killed")


def replay(outbox: Path, tracking_uri: str, timeout_s: float = 600.0) -> Delivery:
    """Apply what an outbox still holds, and add nothing to it.

    Raises:
        UsageError: there is no outbox, a recorder never began it, or another process is sending it.
    """
    if not outbox.is_file():
        raise UsageError(f"an outbox must lie at {outbox}, there is none: was anything recorded under this name?")
    uri = absolute_uri(tracking_uri)
    check_places(outbox.parent, uri)
    box = Outbox(outbox)
    state = OutboxState.read(box)
    if state.opening is None:
        box.close()
        raise UsageError(f"an outbox must hold operations, {outbox} is empty: there is nothing to send")
    return _finish(_start_sender(box, uri, state.opening), box, timeout_s)


def _start_sender(
    outbox: Outbox,
    uri: str,
    header: Operation,
    written: Callable[[], object] = lambda: None,
    begin: threading.Event | None = None,
) -> Sender:
    """Return a sender that has everything before it that was not applied; it waits until `begin`, or not for long."""

    def connect() -> Apply:
        if begin is not None:
            begin.wait(PUT_OFF_S)
        from harness.tracking.writer import MlflowWriter  # imports MLflow, in the sender's thread

        writer = MlflowWriter(connect_client(uri), header)

        def apply(operations: Sequence[Operation]) -> None:
            writer.apply(operations)
            written()

        return apply

    sender = Sender(outbox, connect)
    for line in range(outbox.done() + 1, outbox.count + 1):
        sender.send(None, line)
    return sender


def _finish(sender: Sender, outbox: Outbox, timeout_s: float) -> Delivery:
    """Wait at most `timeout_s` until everything is sent, close the outbox, and say what is left in it."""
    pending = 0 if sender.close(timeout_s) else outbox.count - outbox.done()
    outbox.close()
    note = None
    if pending:
        why = f" ({sender.last_error})" if sender.last_error else ""
        note = f"{pending} operations did not reach MLflow{why}; they are kept in {outbox.path} for s4 sync"
    elif sender.rejected:
        note = f"MLflow refused {sender.rejected} operations, the last one: {sender.last_error}"
    return Delivery(sender.applied, pending, sender.rejected, note)


def tags_of(folder: Path, info: RunInfo, experiment: Experiment, **more: str) -> dict[str, str]:
    """Return the tags of all MLflow runs of a run."""
    data = {"s4.data": experiment.data, "s4.data_digest": info.data_digest} if info.data_digest else {}
    return {
        "s4.preset": info.preset,
        **data,
        "s4.objective": info.metric,
        "s4.horizon": str(info.horizon),
        "s4.folder": str(folder),
        **{f"s4.{name}": value for name, value in more.items()},
    }


@contextmanager
def recording(
    folder: Path,
    info: RunInfo,
    tracking_uri: str,
    tags: Mapping[str, str],
    console: Console,
    mlflow_experiment: str = EXPERIMENT,
    **options: Any,
) -> Iterator[MlflowRecorder]:
    """Yield the recorder of a run; what was begun is continued. At the end nothing is left RUNNING.

    A server that does not answer is said at once, and the run goes on: the outbox keeps its records.

    Args:
        mlflow_experiment: name of the experiment of a new run; one that goes on stays in its own.
        options: of `MlflowRecorder`.
    """
    if (why := silence(tracking_uri)) is not None:
        console.say(f"warning: {tracking_uri} does not answer ({why}): records are kept, s4 sync {folder.name} sends "
                    "what does not get there")  # fmt: skip
    recorder = MlflowRecorder(
        tracking_uri, mlflow_experiment or EXPERIMENT, info.kind, folder.name, tags, folder / OUTBOX, **options
    )
    try:
        with recorder:
            yield recorder
    finally:
        delivery = recorder.close()
        if delivery.note:
            console.say(f"tracking: {delivery.note}")
