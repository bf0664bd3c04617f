"""The vocabulary that gangs, search, tracking and terminal share: trials, their observers, experiments, spaces."""

from __future__ import annotations

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from trainers.errors import UsageError

if TYPE_CHECKING:
    from trainers.run import Run

INTERRUPTED = "interrupted"
"""Error of the trials that Ctrl-C ended."""

OVERHEADS = ("overhead/start_s", "overhead/report_s", "overhead/save_s", "overhead/unsaved")
"""Metrics that a gang adds to a report."""

AUTO = "auto"
"""As many gangs a GPU as a measurement finds room for."""

Value = float | int | str | bool | None | list[Any]
"""What a search can set: a scalar, or a list of them."""


class UnfinishedError(RuntimeError):
    """A run ended before it was over; the message says why, and it can go on."""


class GangsBrokenError(UnfinishedError):
    """A run ended because its gangs could not go on."""


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
    """Position in the search, from 0; trial 0 is the baseline of the space."""
    params: Mapping[str, Value]
    """What the sampler drew, by the names of the search space."""
    overrides: Mapping[str, Value]
    """The same as dotted config paths and the values they were set to."""
    config_hash: str = ""
    """Hash of the resolved config."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved config, as JSON-able nested dictionaries; empty once everybody was told that the trial is over."""
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
        self.metrics = {sys.intern(name): number for name, number in metrics.items()}  # shared by thousands of trials
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


class Experiment(ABC):
    """A base config, and the function that trains one configuration of it: what is trained, searched and ablated.

    Subclass it for a trainer of your own: set the attributes below and write `train`; everything else has a default.
    `harness.experiment.CssExperiment` is the one of this project's trainer. Sent to the workers by pickle, so it holds
    settings, not tensors or open files; what is slow to import is imported inside `warm_up` and `train`.
    """

    name: str = "experiment"
    """For people, folders and records; of `CssExperiment` the preset."""
    horizon: int = 1
    """Optimizer steps of a full training. Every schedule is defined on it, so that a rung means the same everywhere."""
    report_every: int = 1
    """Optimizer steps between two reports; the last step reports, too."""
    metric: str = "dev/miou"
    """Name of the reported metric that is sought, maximised unless an objective says otherwise."""
    config: Mapping[str, Any]
    """The base config: JSON-able nested dictionaries, which `resolve` overrides by dotted paths."""
    settings: Mapping[str, Value] = MappingProxyType({})
    """Settings by hand that the base config holds already, by dotted path; for the record."""
    trainer: str = "own"
    """Which trainer wrote a run's checkpoints: `css`, or `own` for those that only the experiment itself can read."""
    data: str = ""
    """Name of the data set; "": none is recorded."""
    data_digest: str = ""
    """Hash of what is trained on, the splits included. A run goes on with the same data only."""

    def digest(self, overrides: Mapping[str, Value]) -> str:
        """Return the hash of what a run with these overrides is trained on; here that of the base config."""
        return self.data_digest

    def resolve(self, overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
        """Return the config with the values at these dotted paths replaced, and its hash of 12 hexadecimal digits.

        Raises:
            UsageError: a path does not exist, or a value is out of range.
        """
        config = json.loads(json.dumps(dict(self.config)))
        for path, value in overrides.items():
            *parents, leaf = path.split(".")
            section = config
            for key in parents:
                section = section.get(key) if isinstance(section, dict) else None
            if not isinstance(section, dict) or leaf not in section:
                raise UsageError(f"a config path must exist, got {path!r}: {self.name} has {', '.join(config)}")
            section[leaf] = value
        return config, hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]

    def metric_names(self, overrides: Sequence[Mapping[str, Value]], late: bool = False) -> Collection[str]:
        """Return the names of all metrics that reports of trainings with these overrides, or between them, can hold.

        None where they are not known, as here: then no metric is refused before it is missing in a report.

        Args:
            late: whether those of `evaluate` count, too.
        """
        return ()

    @abstractmethod
    def train(self, overrides: Mapping[str, Value], run: Run) -> str | None:
        """Train one configuration from `run.restore_from()`, and report through `run` until `Decision.STOP`.

        Every report holds `step` (optimizer steps done), `finished` (1 at the horizon, else 0) and the metric; between
        two reports `run.interrupted(state)` is asked after each step.

        Returns:
            The hash of the config that was really used, where the trainer can tell: another than meant fails the trial.
        """

    def check(self, workers: int) -> None:
        """Refuse what could not be trained by this many workers together, before anything starts.

        Raises:
            UsageError: one line that says what must hold.
        """

    def check_data(self, overrides: Iterable[Mapping[str, Value]]) -> None:
        """Refuse what a training with some of these overrides, or between them, could not read.

        Raises:
            UsageError: one line that says what must hold.
        """

    def check_evaluation(self) -> None:
        """Refuse what `evaluate` could not read, before anything starts.

        Raises:
            UsageError: one line that says what must hold.
        """

    def describe(self) -> Sequence[str]:
        """Return lines for people, written before anything starts."""
        return ()

    def warm_up(self, run: Run) -> None:
        """Do once a process what every training needs: imports, decoded data, one step that is thrown away."""

    def record_inputs(self, logger: Any, folder: Path, val: bool = False) -> None:
        """Record what a run reads with its parent in MLflow, such as data sets.

        Args:
            logger: a `harness.tracking.run_logger.RunLogger`.
            folder: of the run; what is written there stays with it.
            val: whether the validation images will be read, too.
        """

    def evaluate(self, overrides: Mapping[str, Value], folder: Path) -> dict[str, float]:
        """Return late metrics (`val/...`) of a training that reached its horizon, from the checkpoint in its folder.

        Called once for each run of an ablation, after all are trained; in a process of the cluster with a device.
        """
        return {}

    def draw(self, folder: Path) -> Path | None:
        """Draw what a single training has learnt, from the checkpoint in its folder; none: nothing is drawn."""
        return None


class SearchSpace(Protocol):
    """Define-by-run: which parameters a trial has may depend on those drawn before."""

    @property
    def name(self) -> str:
        """Name for people and for records."""
        ...

    @property
    def baseline_params(self) -> Mapping[str, Value]:
        """The baseline as the sampler would have drawn it; always trial 0."""
        ...

    @property
    def ours_params(self) -> Mapping[str, Value] | None:
        """The same of a second configuration to start from, trial 1; none where there is none."""
        ...

    def suggest(self, trial: Any) -> dict[str, Value]:
        """Draw every parameter through `trial.suggest_*` of Optuna and return them by name."""
        ...

    def overrides(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Return the dotted config paths that these parameters set, and the values."""
        ...


def checked_sharing(wish: int | str) -> int | None:
    """Return how many gangs are to share a GPU; none where that is to be measured.

    Raises:
        UsageError: it is neither a whole number from 1 on nor `auto`.
    """
    if wish == AUTO:
        return None
    if not str(wish).isdecimal() or int(wish) < 1:
        raise UsageError(f"--gangs-per-gpu must be a whole number from 1 on, or auto, got {wish}: give one of them")
    return int(wish)
