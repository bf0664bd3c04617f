"""A Tune trial that trains nothing itself: it hands its config to a gang and returns the gang's reports.

Imports neither torch nor mlflow: one such process runs for each gang, and the first trial waits for it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError

from harness.gangs.client import call_with_retry
from harness.gangs.messages import Job, Report
from harness.run_folder import LATEST, PREVIOUS
from trainers.drafts import draft_name

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
POINTER = "state.json"
"""File of a Tune checkpoint: where the gang saved the state, and its step."""
MAX_DISPATCHERS = 5
"""How many Dispatchers may die on one report."""


class GangTrial(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """Lockstep proxy of one trial at a time; reused for the next (`reuse_actors=True`).

    A failed trial is a result with `error` and `done`, not an exception: on an exception Tune replaces the actor,
    which costs the next trial a process start.
    """

    def setup(self, config: dict[str, Any], dispatcher: Any = None, metrics: Sequence[str] = ()) -> None:
        """Take the first trial; it is submitted by its first step. `metrics`: the objectives, the primary one first."""
        self._dispatcher, self._metrics = dispatcher, metrics
        self._submitted = False
        self._job: Job
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial, or the same one with another config; the old job is over or paused."""
        self.cleanup()
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
        return as_result(report, self._metrics)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Have the gang save the state of the report that is being decided; the checkpoint says where it lies."""
        file = call_with_retry(self._dispatcher.save, self._job.trial) if self._submitted else None
        (Path(checkpoint_dir) / POINTER).write_text(json.dumps({"file": file, "step": self._job.last_step}))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Let the next job begin with a state that this trial or another had saved.

        Raises:
            FileNotFoundError: the state is gone.
        """
        pointer = json.loads((Path(checkpoint_dir) / POINTER).read_text())
        if pointer["file"] is None:
            return
        folder = Path(self._job.checkpoint_dir)
        folder.mkdir(parents=True, exist_ok=True)
        draft = draft_name(folder / LATEST)
        os.link(pointer["file"], draft)
        os.replace(draft, folder / LATEST)
        (folder / PREVIOUS).unlink(missing_ok=True)
        self._job = replace(self._job, last_step=pointer["step"])

    def cleanup(self) -> None:
        """Give up the job, so that its gang is free; nothing happens where it is over."""
        if self._submitted:
            call_with_retry(self._dispatcher.cancel, self._job.trial)
            self._submitted = False

    def _take(self, config: dict[str, Any]) -> None:
        job: Job = config["job"]
        self._job = replace(job, trial=f"{job.trial}#{uuid.uuid4().hex[:8]}")

    def _submit(self) -> None:
        call_with_retry(self._dispatcher.submit, self._job)
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


def as_result(report: Report, metrics: Sequence[str]) -> dict[str, Any]:
    """Return a report as a result of Tune. Each must hold the first of the objectives, the last all of them."""
    error = report.error
    needed = metrics if report.metrics.get("finished") else metrics[:1]
    missing = [name for name in needed if name not in report.metrics]
    if error is None and missing:
        held = ", ".join(sorted(report.metrics))
        error = f"a report must hold the objective {missing[0]!r}, this one holds {held}: choose one of these"
    if error is not None:
        failure = {ERROR: error, INTERRUPTED: report.interrupted}
        return {**failure, FINISHED: False, METRICS: dict(report.metrics), "done": True}
    finished = bool(report.metrics["finished"])
    progress = {OBJECTIVE: report.metrics[metrics[0]], STEP: int(report.metrics["step"])}
    return {**progress, FINISHED: finished, METRICS: dict(report.metrics), "done": finished}
