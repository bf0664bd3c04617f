"""Protocol `Run`: ranks, devices, checkpoints and decisions as training sees them.

`train(config, run)` meets the world through this protocol alone, so the same loop runs in one process, under torchrun,
under Ray Train and as a trial in a warm gang.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # thin processes import this module: it loads no torch
    import torch
    from torch import nn


class Decision(Enum):
    """Decision after a report: train on or stop."""

    CONTINUE = "continue"
    STOP = "stop"


class Checkpointable(Protocol):
    """State that a run can save."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers, strings and containers of them, which load with `weights_only`."""
        ...


class Run(Protocol):
    """One process's part in a training run.

    Every rank calls `report` at the same steps with the same (already reduced) metrics and receives the same decision.
    """

    rank: int
    """0 to world_size - 1; rank 0 reports for all."""
    world_size: int
    """Number of processes that train this model together."""
    device: torch.device
    """Where this rank computes."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model so that its gradients are averaged over the ranks; the model itself where there is one."""
        ...

    def restore_from(self) -> Path | None:
        """Return the checkpoint file to go on from, or none for a fresh start. The same on every rank."""
        ...

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        """Make the metrics known, save the state if it is due, and return whether to go on.

        `metrics` holds finite floats; `step` (optimizer steps done) and `finished` (1 at the horizon, else 0) are
        always there.
        """
        ...

    def interrupted(self, state: Checkpointable) -> bool:
        """Return whether the run has been asked to end before its next report; `state` is saved then.

        Called after every step, so it must cost next to nothing; the same on every rank.
        """
        ...
