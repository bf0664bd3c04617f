"""A trial's view of the gang that trains it: `trainers.run.Run` over a warm gang."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from harness.gangs.dispatcher import CONTINUE, Job
from trainers.checkpoint import save_checkpoint
from trainers.errors import DivergedError
from trainers.local_run import data_parallel
from trainers.run import Checkpointable, Decision

IDLE_TIMEOUT = timedelta(days=30)
"""Ranks may wait this long for rank 0: it waits for the search, which may have nothing for this gang for hours."""


class Ranks:
    """The processes of this gang, and what rank 0 tells the others.

    Messages travel in a gloo group of their own: waiting for the search must not run into the time limit of the
    training's own collectives, nor keep a GPU busy.
    """

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self._control: Any = dist.new_group(backend="gloo", timeout=IDLE_TIMEOUT) if self.size > 1 else None

    def from_rank_0(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        if self._control is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]


class GangRun:
    """Implements `trainers.run.Run` for one trial in a gang; without a job, for warming up."""

    def __init__(
        self, ranks: Ranks, dispatcher: Any = None, gang: int = 0, job: Job | None = None, save_interval_s: float = 0
    ) -> None:
        self.rank = ranks.rank
        self.world_size = ranks.size
        self.device = ranks.device
        self._ranks = ranks
        self._dispatcher = dispatcher
        self._gang = gang
        self._job = job
        self._save_interval_s = save_interval_s
        self._saved_at = time.monotonic()
        self._overhead: dict[str, float] = {}
        self._reported = False

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the ranks of the gang."""
        return data_parallel(model, self.world_size, self.device)

    def restore_from(self) -> Path | None:
        """Return the checkpoint that a lost gang left of this trial. Rank 0 looks, so that all ranks agree."""
        found = self.rank == 0 and self._job is not None and self._latest.exists()
        return self._latest if self._ranks.from_rank_0(found) else None

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        """Save the state if it is due, and wait for the search's decision.

        The state is saved first, so that a trial whose report was delivered never goes back behind it when saves are
        due at every report. Adds `overhead/start_s` (submission to the end of the first step, first report),
        `overhead/save_s` and `overhead/report_s` (what the report before cost).

        Raises:
            DivergedError: a metric is not finite.
        """
        bad = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if bad:
            raise DivergedError(f"not finite at step {metrics['step']:.0f}: {', '.join(bad)}")
        decision = self._report_on_rank_0(metrics, state) if self.rank == 0 else None
        return Decision(self._ranks.from_rank_0(decision))

    def _report_on_rank_0(self, metrics: Mapping[str, float], state: Checkpointable) -> str:
        if self._job is None:
            return CONTINUE
        report = {**metrics, **self._overhead}
        if not self._reported and self._job.retry == 0 and "time/first_step_unix" in metrics:
            report["overhead/start_s"] = metrics["time/first_step_unix"] - self._job.submitted_unix
        self._reported = True
        began = time.monotonic()
        if metrics["finished"] or began - self._saved_at >= self._save_interval_s:
            save_checkpoint(self._latest, state.state_dict())
            self._saved_at = time.monotonic()
        saved = time.monotonic()
        decision: str = ray.get(self._dispatcher.report.remote(self._gang, self._job.trial, report))
        self._overhead = {"overhead/save_s": saved - began, "overhead/report_s": time.monotonic() - saved}
        return decision

    @property
    def _latest(self) -> Path:
        assert self._job is not None  # noqa: S101  # narrows the type; callers have checked
        return Path(self._job.checkpoint_dir) / "latest.pt"
