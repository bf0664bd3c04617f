"""Finds the runs of one search in MLflow, or creates them: a parent, a child a trial, a child a summary.

Runs are found by tags before they are created: `s4.search_id`, minted with the outbox, and what tells a run from the
others of its search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from harness.tracking.outbox import Operation

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

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
