"""Applies operations of the outbox to MLflow. Every operation may be applied again without changing anything.

Runs are found before they are created (`RunTree`). MLflow's own constraints do the rest: a param may be logged again
with the same value, and a metric with the same step and time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.tracking.limits import METRICS_A_BATCH, PARAMS_A_BATCH, TAGS_A_BATCH, batches, weight
from harness.tracking.outbox import Operation
from harness.tracking.run_tree import Found, RunTree
from harness.tracking.views import SHARED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

Points = dict[str, list["Metric"]]
"""Metrics by the run that they wait to be logged to."""


class MlflowWriter:
    """Writes the runs of one search: a parent, its trials and summaries, or the single run of a training.

    `opening` is the first operation of the outbox; it names the experiment and the search.
    """

    def __init__(self, client: MlflowClient, opening: Operation) -> None:
        self._client = client
        self._runs = RunTree(client, opening)

    def apply(self, operations: Sequence[Operation]) -> None:
        """Apply operations in order; the metrics that a run gets from all of them share a request.

        Raises:
            Exception: what MLflow raises, when it refuses or cannot be reached.
        """
        waiting: Points = {}
        for operation in operations:
            self._apply(operation, waiting)
        for run_id, metrics in waiting.items():
            self._log(run_id, metrics)

    def _apply(self, operation: Operation, waiting: Points) -> None:
        match operation["op"]:
            case "open":
                self._client.update_run(self._runs.parent().id, status="RUNNING")
            case "start":
                self._start(operation)
            case "report":
                waiting.setdefault(self._run_of(operation), []).extend(_points(operation))
            case "tag":
                self._log(self._run_of(operation), tags=operation["tags"])
            case "end":
                run_id = self._run_of(operation)
                self._log(run_id, [*waiting.pop(run_id, []), *_points(operation)], operation.get("tags"))
                self._client.set_terminated(run_id, operation["status"], operation["time"])
            case "artifact" | "file":
                self._keep(operation)
            case "aggregate":
                self._aggregate(operation)
            case "dataset":
                self._dataset(operation)
            case "view" | "model" | "register":
                self._offer(operation)
            case other:
                raise ValueError(f"an operation must be one that this version writes, got {other!r}: update s4-harness")

    def _start(self, operation: Operation) -> None:
        """Create or resume a trial's run and log the params that it lacks."""
        found = self._trial(operation)
        status = self._complete(found, operation["params"], operation["tags"])
        if status != "RUNNING":
            self._client.update_run(found.id, status="RUNNING")

    def _aggregate(self, operation: Operation) -> None:
        """Create or update a summary, and leave it FINISHED; a metric that has not changed is not logged again."""
        found = self._runs.aggregate(operation["name"], operation["time"], operation["tags"])
        status = self._complete(found, operation["params"], operation["tags"])
        known = {} if found.created else self._client.get_run(found.id).data.metrics
        self._log(found.id, [point for point in _points(operation) if known.get(point.key) != point.value])
        if status != "FINISHED":
            self._client.set_terminated(found.id, "FINISHED", operation["time"])

    def _complete(self, found: Found, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Log the params and tags that a run lacks, and return its status."""
        status = "RUNNING"
        if not found.created:
            run = self._client.get_run(found.id)
            status = run.info.status
            params = {key: value for key, value in params.items() if key not in run.data.params}
            tags = {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
        self._log(found.id, params=params, tags={} if found.created else tags)
        return status

    def _dataset(self, operation: Operation) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            operation["name"], operation["digest"], "local", operation["source"],
            schema=operation["schema"], profile=operation["profile"],
        )  # fmt: skip
        tags = [InputTag("mlflow.data.context", operation["context"])]
        self._client.log_inputs(self._runs.parent().id, datasets=[DatasetInput(dataset, tags)])

    def _offer(self, operation: Operation) -> None:
        """Prepare a page, keep a checkpoint as a model of a run, or register what it holds (which imports PyTorch)."""
        if operation["op"] == "view":
            self._client.set_experiment_tag(self._runs.experiment(), SHARED + operation["key"], operation["value"])
            return
        from harness.models.external import log_external
        from harness.models.winner import register_winner

        make = log_external if operation["op"] == "model" else register_winner
        make(self._client, self._run_of(operation), **operation["about"])

    def _keep(self, operation: Operation) -> None:
        """Keep a text or a file as an artifact."""
        if operation["op"] == "artifact":
            self._client.log_text(self._run_of(operation), operation["text"], operation["file"])
            return
        path = Path(operation["path"])
        if not path.is_file():
            raise ValueError(f"a file must be there to be kept as an artifact, there is none at {path}: it was moved")
        self._client.log_artifact(self._run_of(operation), str(path), operation.get("folder") or None)

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        """Log what there is in as few requests as MLflow's limits allow, mostly one."""
        from mlflow.entities import Param, RunTag

        for points, notes, settings in zip_longest(
            batches(metrics, METRICS_A_BATCH, weigh=lambda point: weight(point.key)),
            batches(list((tags or {}).items()), TAGS_A_BATCH, weigh=lambda item: weight(*item)),
            batches(list((params or {}).items()), PARAMS_A_BATCH, weigh=lambda item: weight(*item)),
            fillvalue=(),
        ):
            self._client.log_batch(
                run_id,
                metrics=list(points),
                params=[Param(*item) for item in settings],
                tags=[RunTag(*item) for item in notes],
            )

    def _run_of(self, operation: Operation) -> str:
        """Return the run that an operation is about; one that names a trial that has none yet creates it."""
        return self._runs.parent().id if operation.get("trial") is None else self._trial(operation).id

    def _trial(self, operation: Operation) -> Found:
        number = operation["trial"]
        name = operation.get("name", f"trial-{number:03d}")
        return self._runs.trial(number, name, operation["time"], operation.get("tags", {}))


def _points(operation: Operation) -> list[Metric]:
    from mlflow.entities import Metric

    time, step = operation["time"], operation.get("step", 0)
    metrics: Mapping[str, Any] = operation.get("metrics", {})
    return [Metric(key, value, time, step) for key, value in metrics.items()]
