"""A Tune trial that trains nothing itself: it hands its config to a gang and returns the gang's reports.

Imports neither torch nor mlflow: one such process runs for each gang, and the first trial waits for it.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from harness.gangs.dispatcher import Job, Report

OBJECTIVE = "objective"
"""Key of a result: the maximised value. Missing where the trial failed."""
STEP = "step"
"""Key of a result: optimizer steps done."""
METRICS = "metrics"
"""Key of a result: everything that the trial reported."""
FINISHED = "finished"
"""Key of a result: whether the trial reached its horizon."""
ERROR = "error"
"""Key of a result: why the trial failed; none where it did not."""


class GangTrial(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """Lockstep proxy of one trial at a time; reused for the next (`reuse_actors=True`).

    A failed trial is a result with `error` and `done`, not an exception: on an exception Tune replaces the actor,
    which costs the next trial a process start.
    """

    def setup(self, config: dict[str, Any], dispatcher: Any = None, metric: str = "") -> None:
        """Submit the first trial."""
        self._dispatcher = dispatcher
        self._metric = metric
        self._submit(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Submit the next trial."""
        self._submit(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Decide "go on" for the previous report and return the next."""
        report: Report = ray.get(self._dispatcher.next_report.remote(self._job.trial))
        return as_result(report, self._metric)

    def _submit(self, config: dict[str, Any]) -> None:
        self._job: Job = config["job"]
        ray.get(self._dispatcher.submit.remote(self._job))


def as_result(report: Report, metric: str) -> dict[str, Any]:
    """Say a report in the words that Tune's scheduler, the searcher and the recorder read."""
    error = report.error
    if error is None and metric not in report.metrics:
        error = f"every report must hold {metric!r}, got {', '.join(sorted(report.metrics))}"
    if error is not None:
        return {ERROR: error, FINISHED: False, METRICS: dict(report.metrics), "done": True}
    finished = bool(report.metrics["finished"])
    return {
        OBJECTIVE: report.metrics[metric],
        STEP: int(report.metrics["step"]),
        FINISHED: finished,
        METRICS: dict(report.metrics),
        "done": finished,
    }
