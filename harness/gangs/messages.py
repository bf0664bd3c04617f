"""What the search, the Dispatcher and the gangs say to each other. Imports next to nothing: every process reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.trials import Value

CONTINUE = "continue"
STOP = "stop"
"""The search's decisions, as `trainers.run.Decision` spells them."""
LEAVE = "leave"
"""Save and stop: the search is interrupted, and the trial goes on another time."""
SAVE = "save"
"""Save, then ask again: the search wants to come back to this very step, or the gang's node will be gone soon."""
MOVE = "move"
"""Save and stop: the gang starts anew, with more workers or elsewhere, and the trial goes on then."""


@dataclass(frozen=True)
class Job:
    """A trial as a gang receives it."""

    trial: str
    """Key of the trial, unique in the search; what follows a `#` tells its jobs from each other."""
    overrides: Mapping[str, Value]
    checkpoint_dir: str
    """Absolute path that every node sees; the gang keeps the trial's checkpoint there."""
    config_hash: str
    """Hash of the config that the search meant; empty where the search could not resolve it."""
    submitted_unix: float = 0.0
    """Wall clock of the submission, seconds."""
    retry: int = 0
    """How often a gang was lost on this trial."""
    last_step: int = -1
    """Step of the last report that the search has had: it is not told of earlier ones again."""


@dataclass(frozen=True)
class Report:
    """What the search receives: metrics, or the reason why the trial failed or went no further."""

    metrics: Mapping[str, float]
    error: str | None = None
    interrupted: bool = False
    """The trial did not fail: it can go on from its checkpoint in another session."""
