"""Output for people and programs: lines, tables, progress of trials, and one JSON object."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import select
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import rich.console
from rich.live import Live
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid

from harness.formats import last_line
from harness.tables import Column, Table, table_terminal
from harness.trials import Trial, TrialObserver


def program() -> str:
    """Return how this command was called, where it is not found by its name alone: `.venv/bin/s4`."""
    called = sys.argv[0]
    return called if Path(called).name == "s4" and shutil.which("s4") != shutil.which(called) else "s4"


FILE_WIDTH = 500
"""Characters of a line of a table that goes into a file or a pipe: wide, so that nearly all columns are there."""


def drop_lost_output() -> None:
    """Let stdout and stderr lead nowhere where their reader is gone, a closed terminal or pipe: no run ends by that."""
    poll = select.poll()
    for output in (1, 2):
        poll.register(output, 0)
    for output, event in poll.poll(0):
        if event & (select.POLLERR | select.POLLHUP):
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), output)


@dataclass
class Console:
    """A command's output."""

    rich: rich.console.Console
    out: TextIO | None
    """Where the JSON object goes; none where none was asked for."""

    def say(self, line: str) -> None:
        """Write a line for people."""
        drop_lost_output()
        self.rich.print(line, highlight=False, markup=False, soft_wrap=True)

    def table(self, table: Table) -> list[Column]:
        """Write a table below its caption, if it has one, and name and return the columns that there is no room for."""
        if table.caption:
            self.say(table.caption)
        drop_lost_output()
        terminal, left_out = table_terminal(table, self.rich.width)
        self.rich.print(terminal)
        if left_out:
            names = ", ".join(column.title for column in left_out)
            self.rich.print(f"not shown at {self.rich.width} columns: {names}", highlight=False, markup=False)
        return left_out

    def result(self, data: Mapping[str, Any]) -> None:
        """Write the JSON object, if it was asked for."""
        drop_lost_output()
        if self.out is not None:
            self.out.write(json.dumps(data) + "\n")
            self.out.flush()


class _Terminal(rich.console.Console):
    """Rich's console, but a run goes on where its reader has left, as `head` does; Rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Write nothing from now on."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


@contextlib.contextmanager
def open_console(as_json: bool) -> Iterator[Console]:
    """Yield the console of a command. With JSON, whatever libraries print goes to stderr, too."""
    out, stream = (sys.stdout, sys.stderr) if as_json else (None, sys.stdout)
    with contextlib.redirect_stdout(stream):
        yield Console(_Terminal(file=stream, width=None if stream.isatty() else FILE_WIDTH), out)


def make_console(quiet: bool = False) -> Console:
    """Return a console on stdout, or one that writes nowhere."""
    return Console(_Terminal(quiet=quiet, width=None if sys.stdout.isatty() else FILE_WIDTH), None)


HEARTBEAT_S = 10.0
"""Least time between two lines about nothing but progress."""

Clock = Callable[[], float]


@dataclass
class Running:
    """A trial that is running."""

    started: float
    step: int = 0
    value: float | None = None


class Tally:
    """Counts trials. Fed by the driver's thread and drawn by another, so what is drawn is copied under a lock."""

    def __init__(
        self,
        total: int,
        horizon: int,
        metric: str,
        clock: Clock = time.monotonic,
        earlier: Iterable[Trial] = (),
        maximise: bool = True,
        label: Callable[[int], str] = "trial {}".format,
    ) -> None:
        """Begin with the trials of earlier sessions; `label` is what a trial is called, by its number."""
        self.label = label
        self._better: Callable[[float, float], bool] = operator.gt if maximise else operator.lt
        self.total, self.horizon, self.metric, self.clock = total, horizon, metric, clock
        self.counts = {"COMPLETE": 0, "PRUNED": 0, "FAIL": 0}
        self.best: tuple[float, int, int] | None = None
        """Best value so far, its trial and its step; of any trial that reported it."""
        self._running: dict[int, Running] = {}
        self._lock = threading.Lock()
        for trial in earlier:
            if trial.state.over:
                self.counts[trial.state] += 1

    @property
    def ended(self) -> int:
        """Number of trials that ended."""
        return sum(self.counts.values())

    @property
    def running(self) -> dict[int, Running]:
        """Running trials by number, a copy."""
        with self._lock:
            return dict(sorted(self._running.items()))

    def start(self, trial: Trial) -> None:
        """Take in a start."""
        with self._lock:
            self._running[trial.number] = Running(self.clock())

    def report(self, trial: Trial) -> None:
        """Take in a report."""
        value = trial.metrics.get(self.metric)
        with self._lock:
            running = self._running.get(trial.number, Running(self.clock()))
            self._running[trial.number] = Running(running.started, trial.step, value)
        if value is not None and (self.best is None or self._better(value, self.best[0])):
            self.best = value, trial.number, trial.step

    def end(self, trial: Trial) -> float:
        """Take in an end, and return how long the trial ran, in seconds."""
        with self._lock:
            running = self._running.pop(trial.number, Running(self.clock()))
        if trial.state.over:
            self.counts[str(trial.state)] += 1
        return self.clock() - running.started

    def headline(self) -> str:
        """Return counts and the best value in one line."""
        complete, pruned, failed = self.counts.values()
        line = f"{self.ended}/{self.total} trials: {complete} complete, {pruned} pruned, {failed} failed"
        if self.best is not None:
            value, number, step = self.best
            line += f"; best {self.metric} so far {value:.4f} ({self.label(number)}, step {step})"
        return line


class LiveProgress:
    """A `TrialObserver` that only counts; `picture` is drawn by rich's thread."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def on_start(self, trial: Trial) -> None:
        """Show the trial."""
        self.tally.start(trial)

    def on_report(self, trial: Trial) -> None:
        """Show its step and value."""
        self.tally.report(trial)

    def on_end(self, trial: Trial) -> None:
        """Count it."""
        self.tally.end(trial)

    def picture(self) -> rich.console.Group:
        """Return the bar, a line for each running trial, and the counts."""
        tally, table = self.tally, Grid.grid(padding=(0, 2))
        for number, running in tally.running.items():
            value = "" if running.value is None else f"{tally.metric} {running.value:.4f}"
            elapsed = f"{tally.clock() - running.started:.0f} s"
            table.add_row(tally.label(number), f"step {running.step}/{tally.horizon}", value, elapsed)
        bar = ProgressBar(total=tally.total, completed=tally.ended, width=60)
        return rich.console.Group(bar, table, tally.headline())


class PlainProgress:
    """A `TrialObserver` that writes a line when a trial ends, and now and then one that says how far it is."""

    def __init__(self, tally: Tally, say: Callable[[str], None]) -> None:
        self.tally = tally
        self._say = say
        self._said = tally.clock()

    def on_start(self, trial: Trial) -> None:
        """Count the trial."""
        self.tally.start(trial)

    def on_report(self, trial: Trial) -> None:
        """Write a heartbeat if nothing was written for a while."""
        self.tally.report(trial)
        if self.tally.clock() - self._said >= HEARTBEAT_S:
            running = [f"{self.tally.label(number)} at step {at.step}" for number, at in self.tally.running.items()]
            self._write(f"{self.tally.headline()}; running: {', '.join(running)}")

    def on_end(self, trial: Trial) -> None:
        """Write how the trial ended."""
        seconds = self.tally.end(trial)
        at = f"at step {trial.step}/{self.tally.horizon} after {seconds:.0f} s"
        words = f"{self.tally.label(trial.number)} {trial.state} {at}"
        if trial.best:
            words += f", best {self.tally.metric} {trial.best['value']:.4f}"
        if trial.error:
            words += f": {last_line(trial.error)}"
        self._write(f"[{self.tally.ended}/{self.tally.total}] {words}")

    def _write(self, line: str) -> None:
        self._said = self.tally.clock()
        self._say(line)


@contextlib.contextmanager
def show_progress(console: Console, tally: Tally) -> Iterator[TrialObserver]:
    """Yield the observer that shows progress on this console."""
    if not console.rich.is_terminal:
        yield PlainProgress(tally, console.say)
        return
    live = LiveProgress(tally)
    with Live(get_renderable=live.picture, console=console.rich, refresh_per_second=4, transient=True):
        yield live


@contextlib.contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield what is called each time that one of `total` things is done; shown as a bar, or as lines now and then."""
    if console.rich.is_terminal:
        with Progress(console=console.rich, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
        return
    done, said = 0, time.monotonic()

    def count() -> None:
        nonlocal done, said
        done += 1
        if done == total or time.monotonic() - said >= HEARTBEAT_S:
            said = time.monotonic()
            console.say(f"{what}: {done}/{total}")

    yield count
