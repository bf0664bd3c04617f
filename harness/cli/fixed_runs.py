"""Trainings that are all known before they start, through warm gangs: what `s4 confirm` and `s4 ablate` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.cluster import Slots, gang_count
from harness.console import Console, Tally, show_progress
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.event_log import History
    from harness.search.run import SearchPlan
    from harness.tracking.recorder import MlflowRecorder
    from harness.trials import Trial, TrialObserver, Value
    from trainers.config import TrainConfig

AGAIN = "the same command goes on"


@dataclass(frozen=True)
class FixedRuns:
    """What is to be trained, and on how much."""

    folder: Path
    """Absolute; its name is the name of the whole."""
    title: str
    """What it is, for people and for the study: `confirmation of first`."""
    config: TrainConfig
    metric: str
    """Watched while training; reported by every trial."""
    overrides: Sequence[Mapping[str, Value]]
    """Of the config, a run each, in the order of training."""
    labels: Sequence[str]
    """Names of the runs, for people."""
    workers: int
    gangs: int | None
    """None: what fits."""
    hang_timeout_s: float | None = 3600.0

    def plan(self, slots: Slots) -> SearchPlan:
        """Return how the runs are trained.

        Raises:
            UsageError: the gangs do not fit.
        """
        from harness.search.run import SearchPlan

        runs = len(self.overrides)
        return SearchPlan(
            name=self.folder.name,
            storage=self.folder.parent,
            trials=runs,
            grace_steps=1,
            gangs=gang_count(slots, self.workers, self.gangs, runs),
            workers_per_gang=self.workers,
            scheduler="none",
            sampler="random",
            stop_collapsed=False,
            use_gpu=slots.unit == "GPU",
            keep_checkpoints=runs,
            hang_timeout_s=self.hang_timeout_s,
        )


def train_runs(
    runs: FixedRuns, plan: SearchPlan, history: History, recorder: MlflowRecorder, console: Console
) -> list[Trial]:
    """Train every run that is not over, and return all of them; a Ray session must be active.

    Raises:
        typer.Exit: it ended before all were over; said why.
        KeyboardInterrupt: it was interrupted.
    """
    from harness.experiment import CssExperiment
    from harness.search.fixed import FixedTrials
    from harness.search.run import SearchBrokenError, run_search
    from harness.tracking.node_metrics import NodeMetrics

    experiment = CssExperiment(runs.config)
    earlier = list(history.trials.values())
    recorder.close_finished(earlier)
    tally = Tally(
        plan.trials, experiment.horizon, runs.metric, earlier=earlier, label=lambda number: runs.labels[number]
    )
    space = FixedTrials(runs.title, runs.overrides)
    try:
        with NodeMetrics(recorder.system), show_progress(console, tally) as progress:
            observers: list[TrialObserver] = [recorder, progress]
            end = run_search(plan, experiment, space, observers, history)
    except SearchBrokenError as error:
        console.say(f"failed: {error}")
        raise typer.Exit(1) from None
    if end.reason is not None:
        console.say(f"not finished: {end.reason}; {AGAIN}")
        raise typer.Exit(1)
    return end.trials


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return seeds that are separated by commas.

    Raises:
        UsageError: one of them is no seed.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) < 2**31 for word in words):
        raise UsageError(
            f"--seeds must be whole numbers from 0 to {2**31 - 1} with commas, got {text!r}: for example 0,1,2"
        )
    return tuple(int(word) for word in words)
