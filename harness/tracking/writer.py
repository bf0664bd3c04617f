"""Applies one operation of the outbox to MLflow. Every operation may be applied again without changing anything.

Runs are found by tags before they are created: `s4.search_id`, minted with the outbox, and `s4.trial`. MLflow's own
constraints do the rest: a param may be logged again with the same value, and a metric with the same step and time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from harness.tracking.limits import PARAMS_A_BATCH, batches
from harness.tracking.outbox import Operation

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"


class MlflowWriter:
    """Writes the runs of one search: a parent and its trials, or the single run of a training.

    `opening` is the first operation of the outbox; it names the experiment and the search.
    """

    def __init__(self, client: MlflowClient, opening: Operation) -> None:
        self._client = client
        self._opening = opening
        self._experiment: str | None = None
        self._runs: dict[int | None, str] = {}  # trial number, or none for the parent -> run id

    def apply(self, operation: Operation) -> None:
        """Apply one operation.

        Raises:
            Exception: what MLflow raises, when it refuses or cannot be reached.
        """
        match operation["op"]:
            case "open":
                self._client.update_run(self._parent(), status="RUNNING")
            case "start":
                self._start(operation)
            case "end":
                self._log(self._run_of(operation), operation)
                self._client.set_terminated(self._run_of(operation), operation["status"], operation["time"])
            case "artifact":
                self._client.log_text(self._parent(), operation["text"], operation["file"])
            case "file":
                self._client.log_artifact(self._parent(), operation["path"])
            case "report":
                self._log(self._run_of(operation), operation)
            case other:
                raise ValueError(f"an operation must be one that this version writes, got {other!r}: update s4-harness")

    def _start(self, operation: Operation) -> None:
        """Create or resume a trial's run and log the params that it lacks."""
        run_id = self._run_of(operation)
        run = self._client.get_run(run_id)
        lacking = [(key, value) for key, value in operation["params"].items() if key not in run.data.params]
        from mlflow.entities import Param, RunTag

        for batch in batches(lacking, PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=[Param(key, value) for key, value in batch])
        tags = {key: value for key, value in operation["tags"].items() if run.data.tags.get(key) != value}
        if tags:
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        if run.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")

    def _log(self, run_id: str, operation: Operation) -> None:
        """Log the operation's metrics and tags in one request."""
        from mlflow.entities import Metric, RunTag

        time, step = operation["time"], operation.get("step", 0)
        metrics = [Metric(key, value, time, step) for key, value in operation.get("metrics", {}).items()]
        tags = [RunTag(key, value) for key, value in operation.get("tags", {}).items()]
        if metrics or tags:
            self._client.log_batch(run_id, metrics=metrics, tags=tags)

    def _run_of(self, operation: Operation) -> str:
        """Return the run that an operation is about; one that names a trial that has none yet creates it."""
        number = operation.get("trial")
        if number is None or self._opening["kind"] == "train":
            return self._parent()
        if number not in self._runs:
            tags = {**operation.get("tags", {}), "s4.trial": str(number), PARENT: self._parent()}
            found = self._find(f"tags.`s4.trial` = '{number}'")
            self._runs[number] = found or self._create(f"trial-{number:03d}", operation["time"], tags)
        return self._runs[number]

    def _parent(self) -> str:
        if None not in self._runs:
            kind = self._opening["kind"]
            found = self._find(f"tags.`s4.kind` = '{kind}'")
            self._runs[None] = found or self._create(
                self._opening["name"], self._opening["time"], self._opening["tags"]
            )
        return self._runs[None]

    def _find(self, condition: str) -> str | None:
        condition = f"tags.`s4.search_id` = '{self._opening['search_id']}' and {condition}"
        runs = self._client.search_runs([self._experiment_id()], condition, max_results=1)
        return cast("str", runs[0].info.run_id) if runs else None

    def _create(self, name: str, time: int, tags: dict[str, str]) -> str:
        tags = {**tags, "s4.search_id": self._opening["search_id"]}
        run: Run = self._client.create_run(self._experiment_id(), start_time=time, tags=tags, run_name=name)
        return cast("str", run.info.run_id)

    def _experiment_id(self) -> str:
        if self._experiment is None:
            self._experiment = _ensure_experiment(
                self._client, self._opening["experiment"], self._opening["artifact_location"]
            )
        return self._experiment


def _ensure_experiment(client: MlflowClient, name: str, location: str | None) -> str:
    """Return the id of the experiment of this name, created or taken out of the trash if need be."""
    from mlflow.exceptions import MlflowException

    experiment: Any = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return cast("str", client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by another driver, a moment ago
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return cast("str", experiment.experiment_id)
