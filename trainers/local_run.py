"""Run without Ray: one process, or the ranks that torchrun started."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainers.checkpoint import save_checkpoint
from trainers.errors import ConfigError
from trainers.run import Checkpointable, Decision

Listener = Callable[[Mapping[str, float]], Decision | None]


class LocalRun:
    """Implements `Run` in this process group, or alone where there is none."""

    def __init__(
        self, folder: Path | None = None, device: torch.device | None = None, listener: Listener | None = None
    ) -> None:
        """Make a run.

        Args:
            folder: where `latest.pt` is written at every report and looked for at the start; none: nothing is kept.
            device: the rank's device; none: its GPU, or the CPU where there is none.
            listener: called with every report on rank 0; it may return a decision.
        """
        grouped = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if grouped else 0
        self.world_size = dist.get_world_size() if grouped else 1
        self.device = device or default_device()
        self.folder = folder
        self.listener = listener

    @property
    def latest(self) -> Path | None:
        """Return the checkpoint file of this run."""
        return None if self.folder is None else self.folder / "latest.pt"

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the ranks."""
        return data_parallel(model, self.world_size, self.device)

    def restore_from(self) -> Path | None:
        """Return `latest.pt` where an earlier run left it."""
        return self.latest if self.latest is not None and self.latest.exists() else None

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        """Save the state on rank 0, tell the listener, and share its decision."""
        decision = Decision.CONTINUE
        if self.rank == 0:
            if self.latest is not None:
                save_checkpoint(self.latest, state.state_dict())
            if self.listener is not None:
                decision = self.listener(metrics) or Decision.CONTINUE
        return share_decision(decision, self.world_size)

    def interrupted(self, state: Checkpointable) -> bool:
        """Never: a process alone is ended by a signal, and goes on from its last report."""
        return False


def share_decision(decision: Decision, world_size: int) -> Decision:
    """Return rank 0's decision on every rank."""
    if world_size == 1:
        return decision
    shared = [decision]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def data_parallel(model: nn.Module, world_size: int, device: torch.device) -> nn.Module:
    """Return the model in DistributedDataParallel where there is more than one rank.

    Buffers are left alone here: `average_buffers` makes BatchNorm's running statistics those of the global batch.
    """
    if world_size == 1:
        return model
    device_ids = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():
        # torch 2.14 renames broadcast_buffers to forward_sync_buffers, which earlier versions do not know.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(
            model, device_ids=device_ids, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def default_device() -> torch.device:
    """Return this rank's GPU (by LOCAL_RANK), or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group that torchrun describes in the environment; do nothing where there is none.

    Raises:
        ConfigError: there are more processes than GPUs on this machine.
    """
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    device = default_device()
    if device.type == "cuda":
        if device.index >= (gpus := torch.cuda.device_count()):
            raise ConfigError(
                f"each process must have a GPU of its own, got LOCAL_RANK {device.index} and {gpus} GPUs: start at "
                f"most {gpus} processes on this machine"
            )
        # Before any collective: those of objects take the current device, which is cuda:0 on every rank.
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
