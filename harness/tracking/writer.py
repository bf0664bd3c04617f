"""Runs in MLflow, written from the operations of an outbox. Each may be applied again without changing anything.

Runs are found before they are created (`RunTree`). MLflow's own constraints do the rest: a param may be logged again
with the same value, and a metric with the same step and time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from harness.tracking.limits import batches, clean_name, finite, weight
from harness.tracking.outbox import Operation
from harness.tracking.run_logger import FILES, HERE
from harness.tracking.stores import NOTE, PARENT, absolute_uri, connect_client
from harness.tracking.views import SHARED

FILE_OF = "get-artifact?run_uuid="
"""Where MLflow's server has a run's artifacts, relative to its pages; `&path=` follows."""
DIGEST = "s4.data_digest"
"""Tag that says what a run is trained on; a trial with that of its search has its data sets, too."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Has MLflow's pages (3.17) show runs and charts of the experiment first, and not traces of language models."""
ABOUT = {
    NOTE: "Searches, ablations and trainings of s4-harness: semi-supervised semantic segmentation. Each is one row "
    "that unfolds into its trials, and its description says what came of it. `s4 ui NAME` prints links to its tables "
    "and curves, which are also under *Views*."
}
"""Description of an experiment."""


class RunHandle(NamedTuple):
    """A run of the search; `created` just now has the tags that were asked for."""

    id: str
    created: bool


class RunTree:
    """The runs of one search, or the single run of a training.

    `header` is the first operation of the outbox; it names the experiment and the search.
    """

    def __init__(self, client: MlflowClient, header: Operation) -> None:
        self._client = client
        self._header = header
        self._runs: dict[int | str | None, str] = {}  # trial number, key of a summary, or none for the parent
        self._new = False
        """Whether this process created the parent: then there is no run that it does not know."""
        self._doubtful = set[int | str | None]()
        """Runs that MLflow was asked to create, and the answer was lost: they may be there."""

    def parent(self) -> RunHandle:
        """Return the search's own run."""
        return self._ensure(None, f"tags.`s4.kind` = '{self._header['kind']}'", self._header)

    def trial(self, operation: Operation) -> RunHandle:
        """Return the run of the trial that an operation names; a training has but one run."""
        if self._header["kind"] == "train":
            return self.parent()
        number = operation["trial"]
        tags = {**operation.get("tags", {}), "s4.trial": str(number)}
        about = {"name": f"trial-{number:03d}", **operation, "tags": tags}
        return self._ensure(number, f"tags.`s4.trial` = '{number}'", about)

    def aggregate(self, operation: Operation) -> RunHandle:
        """Return the summary whose key is among the operation's tags."""
        key = operation["tags"]["s4.aggregate"]
        return self._ensure(key, f"tags.`s4.aggregate` = '{key}'", operation)

    def run_of(self, operation: Operation) -> str:
        """Return the run that an operation is about; one that names a trial that has none yet creates it."""
        return (self.parent() if operation.get("trial") is None else self.trial(operation)).id

    def _ensure(self, key: int | str | None, condition: str, about: Operation) -> RunHandle:
        """Return the run of this key that meets a condition; where there is none, one with the name, time and tags."""
        if key in self._runs:
            return RunHandle(self._runs[key], created=False)
        search_id = self._header["search_id"]
        condition = f"tags.`s4.search_id` = '{search_id}' and {condition}"
        above = {} if key is None else {PARENT: self.parent().id}
        sure = self._new and key not in self._doubtful
        runs = [] if sure else self._client.search_runs([self.experiment], condition, max_results=1)
        created = not runs
        if created:
            tags = {**about["tags"], **above, "s4.search_id": search_id}
            self._doubtful.add(key)
            runs = [self._client.create_run(self.experiment, about["time"], tags, about["name"])]
        self._doubtful.discard(key)
        self._new = self._new or (created and key is None)
        self._runs[key] = runs[0].info.run_id
        return RunHandle(self._runs[key], created=created)

    @cached_property
    def experiment(self) -> str:
        """The id of the experiment, which is made where there is none, or taken out of the trash."""
        client, name, location = self._client, self._header["experiment"], self._header["artifact_location"]
        experiment: Any = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(client.create_experiment(name, artifact_location=location, tags={**KIND, **ABOUT}))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by another driver, a moment ago
                    raise
                experiment = client.get_experiment_by_name(name)
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        if NOTE not in experiment.tags:  # an earlier version made it
            client.set_experiment_tag(experiment.experiment_id, NOTE, ABOUT[NOTE])
        return str(experiment.experiment_id)


class Waiting(NamedTuple):
    """What is to be logged to a run."""

    metrics: list[Metric]
    params: dict[str, str]


class MlflowWriter:
    """Writes the runs of one search: a parent, its trials and summaries, or the single run of a training."""

    def __init__(self, client: MlflowClient, header: Operation) -> None:
        self._client = client
        self._header = header
        self._runs = RunTree(client, header)

    def apply(self, operations: Sequence[Operation]) -> None:
        """Apply operations in order; what a run gets from all of them shares a request, its first params included.

        Raises:
            Exception: what MLflow raises, when it refuses or cannot be reached.
        """
        waiting: dict[str, Waiting] = defaultdict(lambda: Waiting([], {}))  # by the run that it is to be logged to
        for operation in operations:
            if operation["op"] == "report":
                waiting[self._runs.run_of(operation)].metrics.extend(_points(operation))
            elif operation["op"] == "end":
                run_id = self._runs.run_of(operation)
                left = waiting.pop(run_id, Waiting([], {}))
                self._log(run_id, [*left.metrics, *_points(operation)], operation.get("tags"), left.params)
                self._client.set_terminated(run_id, operation["status"], operation["time"])
            elif operation["op"] == "start":
                run = self._runs.trial(operation)
                if (before := waiting.pop(run.id, None)) is not None:  # a scheduler changed it: its first params stay
                    self._log(run.id, before.metrics, params=before.params)
                waiting[run.id].params.update(self._start(run, operation))
            else:
                self._apply(operation)
        for run_id, left in waiting.items():
            self._log(run_id, left.metrics, params=left.params)

    def _apply(self, operation: Operation) -> None:
        match operation["op"]:
            case "open":
                parent = self._runs.parent()
                self._complete(parent, operation.get("params", {}), {})
                self._client.update_run(parent.id, status="RUNNING")
            case "tag":
                self._tag(self._runs.run_of(operation), operation["tags"])
            case "artifact" | "file":
                self._write_artifact(operation)
            case "aggregate":
                self._aggregate(operation)
            case "dataset":
                self._dataset(operation)
            case "view":
                self._client.set_experiment_tag(self._runs.experiment, SHARED + operation["key"], operation["value"])
            case "model" | "register":
                self._write_model(operation)
            case other:
                raise ValueError(f"an operation must be one that this version writes, got {other!r}: update s4-harness")

    def _start(self, run: RunHandle, operation: Operation) -> Mapping[str, str]:
        """Begin or resume a trial's run, and return the params that are still to be logged."""
        parent = self._runs.parent()
        if not run.created and self._complete(run, operation["params"], operation["tags"]) != "RUNNING":
            self._client.update_run(run.id, status="RUNNING")
        same = operation["tags"].get(DIGEST) == self._header["tags"].get(DIGEST)
        if same and self._inputs and run.id != parent.id:
            self._client.log_inputs(run.id, datasets=self._inputs)
        return operation["params"] if run.created else {}

    @cached_property
    def _inputs(self) -> list[DatasetInput]:
        """Data sets of the search, which are noted before its first trial starts."""
        return list(self._client.get_run(self._runs.parent().id).inputs.dataset_inputs)

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        places = {HERE: f"#/experiments/{self._runs.experiment}/runs/{run_id}", FILES: f"{FILE_OF}{run_id}&path="}
        if NOTE in tags:
            tags = {**tags, NOTE: reduce(lambda note, word: note.replace(word, places[word]), places, tags[NOTE])}
        self._log(run_id, tags=tags)

    def _aggregate(self, operation: Operation) -> None:
        """Create or update a summary, and leave it FINISHED; a metric that has not changed is not logged again."""
        run = self._runs.aggregate(operation)
        status = self._complete(run, operation["params"], operation["tags"])
        known = {} if run.created else self._client.get_run(run.id).data.metrics
        self._log(run.id, [point for point in _points(operation) if known.get(point.key) != point.value])
        if status != "FINISHED":
            self._client.set_terminated(run.id, "FINISHED", operation["time"])

    def _complete(self, run: RunHandle, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Log the params and tags that a run lacks, and return its status."""
        if run.created:
            self._log(run.id, params=params)
            return "RUNNING"
        before = self._client.get_run(run.id)
        params = {key: value for key, value in params.items() if key not in before.data.params}
        tags = {key: value for key, value in tags.items() if before.data.tags.get(key) != value}
        self._log(run.id, params=params, tags=tags)
        return str(before.info.status)

    def _dataset(self, operation: Operation) -> None:
        dataset = Dataset(
            operation["name"], operation["digest"], "local", operation["source"],
            schema=operation["schema"], profile=operation["profile"],
        )  # fmt: skip
        tags = [InputTag("mlflow.data.context", operation["context"])]
        self._client.log_inputs(self._runs.parent().id, datasets=[DatasetInput(dataset, tags)])

    def _write_model(self, operation: Operation) -> None:
        from harness.tracking.models import log_external, register_winner  # imports PyTorch

        write = log_external if operation["op"] == "model" else register_winner
        write(self._client, self._runs.run_of(operation), **operation["about"])

    def _write_artifact(self, operation: Operation) -> None:
        if operation["op"] == "artifact":
            self._client.log_text(self._runs.run_of(operation), operation["text"], operation["file"])
            return
        path = Path(operation["path"])
        if not path.is_file():
            raise ValueError(f"a file must be there to be kept as an artifact, there is none at {path}: it was moved")
        self._client.log_artifact(self._runs.run_of(operation), str(path), operation.get("folder") or None)

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        """Log what there is in as few requests as MLflow's limits allow, mostly one."""
        for points, some_tags, some_params in zip_longest(
            batches(metrics, lambda point: weight(point.key)),
            batches(list((tags or {}).items()), lambda item: weight(*item)),
            batches(list((params or {}).items()), lambda item: weight(*item)),
            fillvalue=(),
        ):
            params_tags = [Param(*item) for item in some_params], [RunTag(*item) for item in some_tags]
            self._client.log_batch(run_id, list(points), *params_tags)


def _points(operation: Operation) -> list[Metric]:
    time, step = operation["time"], operation.get("step", 0)
    return [Metric(key, value, time, step) for key, value in operation.get("metrics", {}).items()]


def record_evaluation(
    tracking_uri: str, run_id: str, metrics: Mapping[str, float], step: int, files: Path, folder: str
) -> int:
    """Log metrics that a run lacks or has other values of, and files; return how many metrics. It stays as it ended.

    Done twice it changes nothing. `files` is a folder whose files all become artifacts, in `folder` of the run.
    """
    client = connect_client(absolute_uri(tracking_uri))
    known = client.get_run(run_id).data.metrics
    now = int(time.time() * 1000)
    points = [Metric(name, value, now, step) for name, value in finite(metrics)[0].items() if known.get(name) != value]
    if points:
        client.log_batch(run_id, metrics=points)
    client.log_artifacts(run_id, str(files), clean_name(folder))
    return len(points)
