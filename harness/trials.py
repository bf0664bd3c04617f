"""The vocabulary that gangs, search, tracking and terminal share: trials, their observers, experiments, spaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from trainers.run import Run

Value = float | int | str | bool | None
"""A scalar that a search can set."""


class TrialState(StrEnum):
    """Where a trial stands. Failure is a state, never a score."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    """Reached its horizon."""
    PRUNED = "PRUNED"
    """Stopped early by the scheduler."""
    FAIL = "FAIL"
    """Raised, diverged, or was lost more often than allowed."""
    INTERRUPTED = "INTERRUPTED"
    """The search ended before it; it goes on from its checkpoint when the search is resumed."""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to the trial, resumed or not."""
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass
class Trial:
    """One configuration of a search, and what has become of it."""

    number: int
    """Position in the search, from 0; trial 0 is the published baseline."""
    params: Mapping[str, Value]
    """What the sampler drew, by the names of the search space."""
    overrides: Mapping[str, Value]
    """The same as dotted config paths and the values they were set to."""
    config_hash: str = ""
    """Hash of the resolved config."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved config, as JSON-able nested dictionaries."""
    state: TrialState = TrialState.RUNNING
    metrics: dict[str, float] = field(default_factory=dict)
    """The last report."""
    best: dict[str, float] = field(default_factory=dict)
    """Best value of the objective so far and the step it was seen at: keys `value`, `step`."""
    values: list[tuple[int, float]] = field(default_factory=list)
    """Optimizer steps and values of the objective of all reports, in order."""
    error: str | None = None
    """Traceback or reason, where the state is FAIL; why the search ended, where it is INTERRUPTED."""

    @property
    def step(self) -> int:
        """Optimizer steps done at the last report."""
        return int(self.metrics.get("step", 0))

    def take_in(self, metrics: Mapping[str, float], value: float | None, maximise: bool = True) -> None:
        """Take in a report and its value of the objective, where it has one."""
        self.metrics = dict(metrics)
        if value is None:
            return
        self.values.append((self.step, value))
        better = not self.best or (value > self.best["value"] if maximise else value < self.best["value"])
        if better:
            self.best = {"value": value, "step": float(self.step)}


class TrialObserver(Protocol):
    """Told of everything that happens to trials, in order, in the driver, from one thread. Must return quickly."""

    def on_start(self, trial: Trial) -> None:
        """Take note that a trial was given to a gang."""
        ...

    def on_report(self, trial: Trial) -> None:
        """Take in a report, `trial.metrics`."""
        ...

    def on_end(self, trial: Trial) -> None:
        """Take note that a trial ended; `trial.state` says how."""
        ...


class Experiment(Protocol):
    """What gangs train: a base config and the function that trains it. Sent to workers by pickle.

    `harness.experiment.CssExperiment` is the real one; tests use an analytic stand-in.
    """

    @property
    def horizon(self) -> int:
        """Optimizer steps of a full trial."""
        ...

    @property
    def metric(self) -> str:
        """Name of the reported metric that is maximised."""
        ...

    def resolve(self, overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
        """Return the resolved config as JSON-able dictionaries, and its hash.

        Raises:
            UsageError: an override is unknown or its value is out of range.
        """
        ...

    def warm_up(self, run: Run) -> None:
        """Do once a process what every trial needs: imports, decoded data."""
        ...

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        """Train one trial from `run.restore_from()`, report through `run`, and return the hash of the config used."""
        ...


class SearchSpace(Protocol):
    """Define-by-run: which parameters a trial has may depend on those drawn before."""

    @property
    def name(self) -> str:
        """Name for people and for records."""
        ...

    @property
    def baseline_params(self) -> Mapping[str, Value]:
        """The published baseline as the sampler would have drawn it; always trial 0."""
        ...

    def suggest(self, trial: Any) -> dict[str, Value]:
        """Draw every parameter through `trial.suggest_*` of Optuna and return them by name."""
        ...

    def overrides(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Return the dotted config paths that these parameters set, and the values."""
        ...
