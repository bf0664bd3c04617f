"""A trial's view of the gang that trains it: `trainers.run.Run` over a warm gang."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.exceptions import RayActorError
from torch import nn

from harness.gangs.client import call_with_retry
from harness.gangs.messages import CONTINUE, LEAVE, SAVE, Job
from harness.run_folder import LATEST, NEXT, PREVIOUS, apart
from trainers.checkpoint import load_checkpoint, save_checkpoint
from trainers.errors import DataError, DivergedError
from trainers.local_run import data_parallel
from trainers.run import Checkpointable, Decision

IDLE_TIMEOUT = timedelta(days=30)
"""Ranks may wait this long for rank 0: it waits for the search, which may have nothing for this gang for hours."""
AGREE_EVERY = 10
"""Steps between two agreements of several ranks on whether to leave; one rank alone looks after every step."""

log = logging.getLogger(__name__)


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
        context_here = ray.get_runtime_context()
        self.workers: Sequence[Any] = self._gather(context_here.current_actor)
        """Handles of the gang's processes, by rank; known to rank 0."""
        self.nodes: Sequence[str] = self._gather(context_here.get_node_id())
        """Ids of the nodes that they are on, by rank; known to rank 0."""

    def from_rank_0(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        if self._control is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def _gather(self, value: Any) -> Sequence[Any]:
        if self._control is None:
            return [value]
        box = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, box, dst=0, group=self._control)
        return box or []


class ControlChannel:
    """What the search has to say between two reports; rank 0 looks after every step, which costs nothing."""

    def __init__(self, dispatcher: Any, gang: int) -> None:
        self._dispatcher, self._gang = dispatcher, gang
        self._answer: Future[str] | None = None

    def subscribe(self) -> None:
        """Ask to be told, unless an answer is awaited already; an answer is lost where the Dispatcher dies."""
        if self._answer is None or (self._answer.done() and not self.poll()):
            self._answer = self._dispatcher.next_command.remote(self._gang).future()

    def poll(self) -> str:
        """Return what has been said: LEAVE, MOVE or SAVE; "" where nothing was."""
        if self._answer is None or not self._answer.done() or self._answer.exception() is not None:
            return ""
        return self._answer.result()

    def acknowledge(self) -> None:
        """Take what was said as done, and listen again."""
        self._answer = None
        self.subscribe()


class GangRun:
    """Implements `trainers.run.Run` for one trial in a gang; without a job, for warming up."""

    def __init__(
        self,
        ranks: Ranks,
        dispatcher: Any = None,
        gang: int = 0,
        job: Job | None = None,
        save_interval_s: float = 0,
        channel: ControlChannel | None = None,
    ) -> None:
        self.rank, self.world_size, self.device = ranks.rank, ranks.size, ranks.device
        self.left = ""
        """LEAVE or MOVE where the trial was saved and left because the search said so, "" where it was not."""
        self._ranks, self._dispatcher, self._gang, self._job = ranks, dispatcher, gang, job
        self._save_interval_s, self._channel = save_interval_s, channel
        self._steps, self._reported = 0, False
        self._saved_at = time.monotonic()
        self._overhead: dict[str, float] = {}

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the ranks of the gang."""
        return data_parallel(model, self.world_size, self.device)

    def restore_from(self) -> Path | None:
        """Return the checkpoint that was left of this trial. Rank 0 looks, so that all ranks agree."""
        return self._ranks.from_rank_0(self._readable() if self.rank == 0 else None)  # type: ignore[no-any-return]

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        """Wait for the search's decision, and save the state if it is due and will be needed.

        The state is saved last: a process that dies in between trains the interval again and its report is passed over,
        where a state that was saved first would go on behind a report that the search never had. Adds
        `overhead/start_s` (submission to the end of the first step, first report) and, of the report before,
        `overhead/report_s`, `overhead/save_s` and `overhead/unsaved` (1 where the state could not be written: a full
        disk fails no trial).

        Raises:
            DivergedError: a metric is not finite.
        """
        bad = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if bad:
            raise DivergedError(f"not finite at step {metrics['step']:.0f}: {', '.join(bad)}")
        decision = self._report_on_rank_0(metrics, state) if self.rank == 0 else None
        decided: str = self._ranks.from_rank_0(decision)
        self.left = decided if decided == LEAVE else ""
        return Decision.CONTINUE if decided == CONTINUE else Decision.STOP

    def interrupted(self, state: Checkpointable) -> bool:
        """Return whether the search has asked to leave; the state is saved then, or where it asked for just that."""
        self._steps += 1
        if self._channel is None or (self.world_size > 1 and self._steps % AGREE_EVERY):
            return False
        command: str = self._ranks.from_rank_0(self._channel.poll())
        if not command:
            return False
        if self.rank == 0:
            self._save(state)
        if command == SAVE:
            if self.rank == 0:
                self._channel.acknowledge()
            return False
        self.left = command
        return True

    def _report_on_rank_0(self, metrics: Mapping[str, float], state: Checkpointable) -> str:
        if self._job is None:
            return CONTINUE
        report = {**metrics, **self._overhead}
        if not self._reported and self._job.retry == 0 and "time/first_step_unix" in metrics:
            report["overhead/start_s"] = metrics["time/first_step_unix"] - self._job.submitted_unix
        self._reported = True
        began = time.monotonic()
        decision = self._ask("report", report)
        while decision == SAVE:
            decision = self._ask("saved", self._save_apart(state, int(metrics["step"])))
        decided = time.monotonic()
        unsaved = False
        due = decision == CONTINUE and decided - self._saved_at >= self._save_interval_s
        if due or decision == LEAVE or metrics["finished"]:
            unsaved = not self._save(state)
        self._overhead = {
            "overhead/report_s": decided - began,
            "overhead/save_s": time.monotonic() - decided,
            "overhead/unsaved": float(unsaved),
        }
        return decision

    def _ask(self, method: str, *arguments: Any) -> str:
        """Call the Dispatcher; where its process died, the successor is told who we are and asked again."""
        assert self._job is not None  # noqa: S101  # narrows the type; callers have checked
        call = getattr(self._dispatcher, method)
        try:
            return str(ray.get(call.remote(self._gang, self._job.trial, *arguments)))
        except RayActorError:
            call_with_retry(self._dispatcher.introduce, self._gang, self._ranks.workers, self._ranks.nodes)
            if self._channel is not None:
                self._channel.subscribe()
            return str(call_with_retry(call, self._gang, self._job.trial, *arguments))

    def _save(self, state: Checkpointable) -> bool:
        """Save the state and keep the one before; return whether it could be written."""
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_checkpoint(folder / NEXT, state.state_dict())
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder / LATEST, folder / PREVIOUS)
            os.replace(folder / NEXT, folder / LATEST)
        except OSError as error:
            log.warning("cannot save %s (%s): training goes on without", folder, error)
            return False
        self._saved_at = time.monotonic()
        return True

    def _save_apart(self, state: Checkpointable, step: int) -> str:
        """Save the state under a name of its own, for the search; return the file, or "" where that failed."""
        if not self._save(state):
            return ""
        path = apart(self._folder, step)
        path.unlink(missing_ok=True)
        os.link(self._folder / LATEST, path)
        return str(path)

    def _readable(self) -> Path | None:
        """Return the newest checkpoint of the job that can be read; what cannot is put aside."""
        if self._job is None:
            return None
        for path in (self._folder / LATEST, self._folder / PREVIOUS):
            if not path.exists():
                continue
            try:
                load_checkpoint(path)
            except DataError as error:
                log.warning("%s", error)
                with contextlib.suppress(OSError):
                    path.rename(path.with_name(f"{path.name}.unreadable"))
            else:
                return path
        return None

    @property
    def _folder(self) -> Path:
        assert self._job is not None  # noqa: S101  # narrows the type; callers have checked
        return Path(self._job.checkpoint_dir)
