"""Applies operations of the outbox to MLflow. Every operation may be applied again without changing anything.

Runs are found before they are created (`RunTree`). MLflow's own constraints do the rest: a param may be logged again
with the same value, and a metric with the same step and time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from harness.event_log import Operation
from harness.tracking.limits import METRICS_A_BATCH, PARAMS_A_BATCH, TAGS_A_BATCH, batches, weight
from harness.tracking.views import SHARED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

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
        from harness.tracking.models import log_external, register_winner

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


PARENT = "mlflow.parentRunId"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Has MLflow's pages (3.17) show runs and charts of the experiment first, and not traces of language models."""


class Found(NamedTuple):
    """A run of the search."""

    id: str
    created: bool
    """Just now, with the tags that were asked for."""


class RunTree:
    """The runs of one search, or the single run of a training.

    `opening` is the first operation of the outbox; it names the experiment and the search.
    """

    def __init__(self, client: MlflowClient, opening: Operation) -> None:
        self._client = client
        self._opening = opening
        self._experiment: str | None = None
        self._runs: dict[int | str | None, str] = {}  # trial number, key of a summary, or none for the parent

    def parent(self) -> Found:
        """Return the search's own run."""
        condition = f"tags.`s4.kind` = '{self._opening['kind']}'"
        opening = self._opening
        return self._ensure(None, condition, opening["name"], opening["time"], opening["tags"])

    def trial(self, number: int, name: str, time: int, tags: Mapping[str, str]) -> Found:
        """Return a trial's run; a training has but one."""
        if self._opening["kind"] == "train":
            return self.parent()
        tags = {**tags, "s4.trial": str(number)}
        return self._ensure(number, f"tags.`s4.trial` = '{number}'", name, time, tags)

    def aggregate(self, name: str, time: int, tags: Mapping[str, str]) -> Found:
        """Return the summary whose key is among the tags."""
        key = tags["s4.aggregate"]
        return self._ensure(key, f"tags.`s4.aggregate` = '{key}'", name, time, tags)

    def _ensure(self, key: int | str | None, condition: str, name: str, time: int, tags: Mapping[str, str]) -> Found:
        if key in self._runs:
            return Found(self._runs[key], created=False)
        found = self._find(condition)
        if found is None:
            tags = tags if key is None else {**tags, PARENT: self.parent().id}
            self._runs[key] = self._create(name, time, {**tags, "s4.search_id": self._opening["search_id"]})
            return Found(self._runs[key], created=True)
        self._runs[key] = found
        return Found(found, created=False)

    def _find(self, condition: str) -> str | None:
        condition = f"tags.`s4.search_id` = '{self._opening['search_id']}' and {condition}"
        runs = self._client.search_runs([self.experiment()], condition, max_results=1)
        return cast("str", runs[0].info.run_id) if runs else None

    def _create(self, name: str, time: int, tags: Mapping[str, str]) -> str:
        run: Run = self._client.create_run(self.experiment(), start_time=time, tags=dict(tags), run_name=name)
        return cast("str", run.info.run_id)

    def experiment(self) -> str:
        """Return the id of the experiment, which is made where there is none."""
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
            return cast("str", client.create_experiment(name, artifact_location=location, tags=KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by another driver, a moment ago
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return cast("str", experiment.experiment_id)


def find_runs(client: MlflowClient, experiment: str, condition: str) -> Iterator[Run]:
    """Yield the runs of an experiment, by its id, that meet a condition; MLflow hands them out by pages."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment], condition, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
