"""A Tune trial that trains nothing itself: it hands its config to a gang and returns the gang's reports.

Imports neither torch nor mlflow: one such process runs for each gang, and the first trial waits for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError

from harness.gangs.messages import Job, Report
from harness.gangs.reconnect import insist

OBJECTIVE = "objective"
"""Key of a result: the maximised value. Missing where the trial failed."""
STEP = "step"
"""Key of a result: optimizer steps done."""
METRICS = "metrics"
"""Key of a result: everything that the trial reported."""
FINISHED = "finished"
"""Key of a result: whether the trial reached its horizon."""
ERROR = "error"
"""Key of a result: why the trial failed, or went no further; none where it did not."""
INTERRUPTED = "interrupted"
"""Key of a result with an error: whether the trial can go on in another session."""


class GangTrial(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """Lockstep proxy of one trial at a time; reused for the next (`reuse_actors=True`).

    A failed trial is a result with `error` and `done`, not an exception: on an exception Tune replaces the actor,
    which costs the next trial a process start.
    """

    def setup(self, config: dict[str, Any], dispatcher: Any = None, metric: str = "") -> None:
        """Take the first trial; it is submitted by its first step, which may come after `load_checkpoint`."""
        self._dispatcher = dispatcher
        self._metric = metric
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Decide "go on" for the previous report and return the next."""
        if not self._submitted:
            self._submit()
        try:
            report: Report = ray.get(self._dispatcher.next_report.remote(self._job.trial))
        except RayActorError:  # the Dispatcher's successor knows nothing of this trial
            report = self._again()
        self._job = replace(self._job, last_step=int(report.metrics.get("step", self._job.last_step)))
        return as_result(report, self._metric)

    def _take(self, config: dict[str, Any]) -> None:
        self._job: Job = config["job"]
        self._submitted = False

    def _submit(self) -> None:
        insist(self._dispatcher.submit, self._job)
        self._submitted = True

    def _again(self) -> Report:
        """Submit the trial once more, and wait for a report that the search has not had yet."""
        for _ in range(MAX_DISPATCHERS):
            self._submit()
            try:
                report: Report = ray.get(self._dispatcher.next_report.remote(self._job.trial))
            except RayActorError:
                continue
            return report
        return Report({}, f"the search's Dispatcher died {MAX_DISPATCHERS} times on this report", interrupted=True)


MAX_DISPATCHERS = 5
"""How many Dispatchers may die on one report."""


def as_result(report: Report, metric: str) -> dict[str, Any]:
    """Say a report in the words that Tune's scheduler, the searcher and the recorder read."""
    error = report.error
    if error is None and metric not in report.metrics:
        error = f"every report must hold {metric!r}, got {', '.join(sorted(report.metrics))}"
    if error is not None:
        return {
            ERROR: error,
            INTERRUPTED: report.interrupted,
            FINISHED: False,
            METRICS: dict(report.metrics),
            "done": True,
        }
    finished = bool(report.metrics["finished"])
    return {
        OBJECTIVE: report.metrics[metric],
        STEP: int(report.metrics["step"]),
        FINISHED: finished,
        METRICS: dict(report.metrics),
        "done": finished,
    }
