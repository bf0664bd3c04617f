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
from rich.padding import Padding
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid

from harness.formats import duration, last_line
from harness.tables import Column, Table, table_terminal
from harness.trials import Trial, TrialObserver


def program() -> str:
    """Return how this command was called, where it is not found by its name alone: `.venv/bin/s4`."""
    called = sys.argv[0]
    return called if Path(called).name == "s4" and shutil.which("s4") != shutil.which(called) else "s4"


FILE_WIDTH = 500
"""Characters of a line of a table that goes into a file or a pipe where $COLUMNS does not say: nearly all columns."""


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
        if self.rich.is_terminal:
            self.rich.print(terminal)
        else:
            with self.rich.capture() as drawn:
                self.rich.print(terminal)
            self.say("\n".join(line.rstrip() for line in drawn.get().splitlines()))
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
        yield Console(_Terminal(file=stream, width=width_for(stream)), out)


def make_console(quiet: bool = False) -> Console:
    """Return a console on stdout, or one that writes nowhere."""
    return Console(_Terminal(quiet=quiet, width=width_for(sys.stdout)), None)


def width_for(stream: TextIO) -> int | None:
    """Return how wide lines may be; none: as the terminal is."""
    wished = os.environ.get("COLUMNS", "")
    return None if stream.isatty() else int(wished) if wished.isdecimal() and int(wished) > 0 else FILE_WIDTH


HEARTBEAT_S = 10.0
"""Least time between two lines about nothing but progress."""

LOSSES = ("train/loss/total", "train/loss")
"""Metrics of which the first that is reported is shown as the loss."""
Clock = Callable[[], float]


@dataclass
class Running:
    """A trial that is running."""

    started: float
    step: int = 0
    value: float | None = None
    loss: float | None = None
    first: tuple[float, int] | None = None
    """When its first report of this session came, and of which step."""

    def rate(self, now: float) -> float | None:
        """Return its steps a second between its first report and now; none before there are two reports."""
        if self.first is None or self.step <= self.first[1] or now <= self.first[0]:
            return None
        return (self.step - self.first[1]) / (now - self.first[0])


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
        single: bool = False,
    ) -> None:
        """Begin with the trials of earlier sessions; `label` is what a trial is called, by its number.

        A `single` training is counted in steps, not in trials.
        """
        self.label, self.single = label, single
        self._began: float | None = None
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
        self._before, self._reported = self.ended, clock()

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
            self._began = self.clock() if self._began is None else self._began
            self._running[trial.number] = Running(self.clock())

    def report(self, trial: Trial) -> None:
        """Take in a report."""
        value = trial.metrics.get(self.metric)
        loss = next((trial.metrics[name] for name in LOSSES if name in trial.metrics), None)
        with self._lock:
            now = self.clock()
            running = self._running.get(trial.number, Running(now))
            first, self._reported = running.first or (now, trial.step), now
            self._running[trial.number] = Running(running.started, trial.step, value, loss, first)
        if value is not None and (self.best is None or self._better(value, self.best[0])):
            self.best = value, trial.number, trial.step

    def end(self, trial: Trial) -> float:
        """Take in an end, and return how long the trial ran, in seconds."""
        with self._lock:
            running = self._running.pop(trial.number, Running(self.clock()))
        if trial.state.over:
            self.counts[str(trial.state)] += 1
        return self.clock() - running.started

    @property
    def share(self) -> float:
        """Share of the work that is done: trials that ended, and what running ones have done of the horizon."""
        running = sum(min(1.0, at.step / self.horizon) for at in self.running.values())
        return min(1.0, (self.ended + running) / max(1, self.total))

    def left_s(self) -> float | None:
        """Return about how long it still takes, in seconds: as this session went so far; none before a first report.

        A trial that is stopped early counts as one, so a search is expected to go on stopping as many.
        """
        running = self.running.values()
        steps = sum(at.step - at.first[1] for at in running if at.first)
        done = self.ended - self._before + steps / self.horizon
        if self._began is None or done <= 0 or self.share >= 1:
            return None
        return (self.clock() - self._began) / done * (1 - self.share) * self.total

    def headline(self) -> str:
        """Return counts, or the step of a single training, the best value and the time that is left in one line."""
        complete, pruned, failed = self.counts.values()
        parts = [f"{self.ended}/{self.total} trials: {complete} complete, {pruned} pruned, {failed} failed"]
        if self.single:
            parts = [text for at in self.running.values() for text in self._course(at)] or parts
        if self.best is not None:
            value, number, step = self.best
            who = "" if self.single else f"{self.label(number)}, "
            parts.append(f"best {self.metric} so far {value:.4f} ({who}step {step})")
        if (left := self.left_s()) is not None:
            parts.append(f"about {duration(left)} left")
        return "; ".join(parts)

    def _course(self, at: Running) -> Iterator[str]:
        """Yield how far a training is, how fast it goes and what it loses."""
        rate = at.rate(self._reported)
        yield f"step {at.step}/{self.horizon}" + ("" if rate is None else f", {rate:.3g} steps/s")
        if at.loss is not None:
            yield f"loss {at.loss:.4g}"


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
        bar = Padding(ProgressBar(total=1.0, completed=tally.share, width=60), 0)  # which ends its line
        return rich.console.Group(bar, *([] if tally.single else [table]), tally.headline())


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
            self._write(self.tally.headline() + ("" if self.tally.single else f"; running: {', '.join(running)}"))

    def on_end(self, trial: Trial) -> None:
        """Write how the trial ended."""
        seconds = self.tally.end(trial)
        at = f"at step {trial.step}/{self.tally.horizon} after {seconds:.0f} s"
        words = f"{self.tally.label(trial.number)} {trial.state} {at}"
        if trial.best:
            words += f", best {self.tally.metric} {trial.best['value']:.4f}"
        if trial.error:
            words += f": {last_line(trial.error)}"
        self._write(words if self.tally.single else f"[{self.tally.ended}/{self.tally.total}] {words}")

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
