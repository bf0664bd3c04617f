"""Retention of checkpoints: which of a search's stay on disk."""

from __future__ import annotations

import logging
import os
import shutil
import time
from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import InitVar, dataclass
from pathlib import Path

from harness.formats import GIB
from harness.run_folder import APART, PREVIOUS, checkpoint_folder
from harness.trials import Trial, TrialState
from harness.tuning.objectives import Objective

KEPT_APART = 2
"""States saved apart that a live trial keeps: a clone may still be about to start from the one before the last."""
MEASURE_S = 30.0
"""Time between two measurements of the folder while trials run."""

log = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class CheckpointRetention:
    """A TrialObserver that decides which checkpoints stay.

    Live and interrupted trials keep theirs, always: they must be able to go on. Of the complete ones the best stay, and
    the baseline; pruned and failed trials keep none. Where a size is stated and exceeded, more goes: first what live
    trials hold besides their latest, then complete trials from the worst up, the best of all last.
    """

    root: Path
    """Holds a folder for each trial."""
    objective: Objective
    """Decides which complete trials are the best, by their last report."""
    keep: int
    earlier: InitVar[Iterable[Trial]] = ()
    max_gib: float | None = None
    """What all checkpoints together may take; none: as much as they like."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self, earlier: Iterable[Trial]) -> None:
        self._trials = dict[int, Trial]()
        self._best: list[Trial] = []
        """Complete trials, best first; the baseline is kept anyway and takes nobody's place."""
        for trial in earlier:
            self._take_in(trial)
        self._measured = float("-inf")
        self._warned = False

    def on_start(self, trial: Trial) -> None:
        """Take note of a trial that needs its checkpoint."""
        self._trials[trial.number] = trial

    def on_report(self, trial: Trial) -> None:
        """Measure now and then."""
        if self.max_gib is not None and self.clock() - self._measured >= MEASURE_S:
            self._make_room()

    def on_end(self, trial: Trial) -> None:
        """Delete what is no longer wanted. No gang writes to it any more: it has been told to stop."""
        self._take_in(trial)
        wanted = {kept.number for kept in self._best[: self.keep]} | {0}
        for other in self._present():
            if other.state.over and not (other.state is TrialState.COMPLETE and other.number in wanted):
                shutil.rmtree(self._folder(other), ignore_errors=True)
        self._thin(trial)
        if self.max_gib is not None:
            self._make_room()

    def _take_in(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        if trial.state is TrialState.COMPLETE and trial.number:
            insort(self._best, trial, key=self._rank)

    def _rank(self, trial: Trial) -> tuple[float, int]:
        value = trial.metrics[self.objective.metric]
        return -value if self.objective.maximise else value, trial.number

    def _present(self) -> list[Trial]:
        """Return the trials that have a folder: a few of all that there were."""
        numbers = (int(name) for name in os.listdir(self.root) if name.isdigit()) if self.root.exists() else ()
        return [self._trials[number] for number in sorted(numbers) if number in self._trials]

    def _make_room(self) -> None:
        assert self.max_gib is not None  # noqa: S101  # narrows the type; callers have checked
        self._measured = self.clock()
        drops = self._drops()
        while (size := _size(self.root)) > self.max_gib * GIB:
            drop = next(drops, None)
            if drop is None:
                if not self._warned:
                    log.warning("live checkpoints need %.2f GiB of %g: allow more", size / GIB, self.max_gib)
                self._warned = True
                return
            drop()

    def _drops(self) -> Iterator[Callable[[], None]]:
        """Yield what can be done to make room, the least harmful first."""
        present = self._present()
        for trial in present:
            if not trial.state.over:
                yield lambda live=trial: self._thin(live, previous=False)  # type: ignore[misc]
        baseline = [trial for trial in present if trial.number == 0 and trial.state.over]
        best = sorted([item for item in present if item.number and item.state is TrialState.COMPLETE], key=self._rank)
        for trial in [*best[:0:-1], *baseline, *best[:1]]:
            yield lambda done=trial: shutil.rmtree(self._folder(done), ignore_errors=True)  # type: ignore[misc]

    def _thin(self, trial: Trial, previous: bool = True) -> None:
        """Delete a trial's states besides the latest: old ones that were saved apart, and the previous one if asked."""
        folder = self._folder(trial)
        if trial.state.over or not previous:
            (folder / PREVIOUS).unlink(missing_ok=True)
        keep = 0 if trial.state.over else KEPT_APART
        apart = sorted(folder.glob(APART))
        for path in apart[: len(apart) - keep]:
            path.unlink(missing_ok=True)

    def _folder(self, trial: Trial) -> Path:
        return checkpoint_folder(self.root, trial.number)


def _size(root: Path) -> int:
    """Return the bytes of all files below a folder; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for path in root.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # deleted a moment ago
            continue
        if path.is_file():
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())
