"""Bounds what a search keeps on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.trials import Trial, TrialState


def checkpoint_folder(root: Path, number: int) -> Path:
    """Return where a trial's checkpoint lies."""
    return root / f"{number:05d}"


class CheckpointKeeper:
    """A TrialObserver that keeps the checkpoints of running trials, of the baseline, and of the best complete ones."""

    def __init__(self, root: Path, metric: str, keep: int) -> None:
        self._root = root
        self._metric = metric
        self._keep = keep
        self._kept: list[tuple[float, int]] = []

    def on_start(self, trial: Trial) -> None:
        """Do nothing."""

    def on_report(self, trial: Trial) -> None:
        """Do nothing."""

    def on_end(self, trial: Trial) -> None:
        """Delete the checkpoint that is no longer wanted. No gang writes to it any more: it has been told to stop."""
        drop = trial.number
        if trial.state is TrialState.COMPLETE and trial.number == 0:
            return  # the published baseline, which the others are compared with
        if trial.state is TrialState.COMPLETE:
            self._kept = sorted([*self._kept, (trial.metrics[self._metric], -trial.number)], reverse=True)
            if len(self._kept) <= self._keep:
                return
            drop = -self._kept.pop()[1]
        shutil.rmtree(checkpoint_folder(self._root, drop), ignore_errors=True)
