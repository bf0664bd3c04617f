"""A store, the recorders that a test opens on it, and trials to record."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from harness.tracking.recorder import MlflowRecorder
from harness.trials import Trial, TrialState

CONFIG = {"seed": 3, "loss": {"lambda_u": 1.5, "queries": 256}, "data": {"name": "digits", "digit_size": [12, 16]}}


class Store:
    """A store, the recorders that a test opens on it, and the runs that they left."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.client = MlflowClient(uri)
        self.uri = uri
        self.folder = folder
        self.experiment = folder.name

    def recorder(self, kind: str = "search", name: str = "search-001") -> MlflowRecorder:
        return MlflowRecorder(
            self.uri, self.experiment, kind, name, {"s4.preset": "digits_css"}, self.folder / name / "outbox.jsonl"
        )

    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name(self.experiment)
        return list(self.client.search_runs([experiment.experiment_id]))

    def run(self, name: str) -> Run:
        [found] = [run for run in self.runs() if run.info.run_name == name]
        return found


def trial(number: int) -> Trial:
    return Trial(number, {}, {"loss.lambda_u": 1.5}, config_hash=f"hash{number}", config=CONFIG)


def report(recorder: MlflowRecorder, trial: Trial, step: int, value: float) -> None:
    trial.metrics = {"step": step, "finished": 0.0, "dev/miou": value, "loss/sup": 0.5}
    if not trial.best or value > trial.best["value"]:
        trial.best = {"value": value, "step": step}
    recorder.on_report(trial)


def play(recorder: MlflowRecorder, number: int, state: TrialState, values: tuple[float, ...] = (0.5, 0.4)) -> Trial:
    playing = trial(number)
    recorder.on_start(playing)
    for index, value in enumerate(values, start=1):
        report(recorder, playing, 10 * index, value)
    playing.state = state
    playing.error = "Traceback ...\nDivergedError: loss is nan" if state is TrialState.FAIL else None
    recorder.on_end(playing)
    return playing


def wait_until_sent(recorder: MlflowRecorder) -> None:
    """Wait until MLflow has what was recorded so far."""
    wait_until(lambda: recorder._outbox.done() >= recorder._outbox.count)


def wait_until_refused(recorder: MlflowRecorder) -> None:
    """Wait until MLflow has not taken what was recorded."""
    wait_until(lambda: recorder._sender.last_error is not None)


def wait_until(condition: Callable[[], bool], patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{patience_s} s were not enough"
        time.sleep(0.01)


def picture(store: Store, experiment: str) -> dict[str, Any]:
    """Return all that MLflow holds of an experiment, apart from ids and places."""
    found = store.client.get_experiment_by_name(experiment)
    runs = store.client.search_runs([found.experiment_id])
    names = sorted(run.info.run_name for run in runs)
    assert len(names) == len(set(names)), f"a run was created twice: {names}"
    return {run.info.run_name: held(store.client, run) for run in runs}


def held(client: MlflowClient, run: Run) -> dict[str, Any]:
    run_id, tags = run.info.run_id, run.data.tags
    mine = {key: value for key, value in tags.items() if key.startswith("s4.") and key != "s4.search_id"}
    histories = {key: [(point.step, point.timestamp, point.value) for point in client.get_metric_history(run_id, key)]
                 for key in run.data.metrics}  # fmt: skip
    folders = [item.path for item in client.list_artifacts(run_id)]
    return {
        "ended": (run.info.status, run.info.start_time, run.info.end_time, "mlflow.parentRunId" in tags),
        "params": run.data.params,
        "tags": mine,
        "histories": histories,
        "artifacts": folders + [item.path for folder in folders for item in client.list_artifacts(run_id, folder)],
        "inputs": [(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs],
    }
