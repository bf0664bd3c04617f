"""Results of a search as tables: ranked, written beside the search, and read again without Ray.

Trials that reached the horizon come first, for an early value says little about a late one; failures have no rank.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.formats import counted, duration, last_line
from harness.run_folder import write_whole
from harness.tables import Cell, Column, Data, Table, table_csv, table_markdown
from harness.trials import Trial, Value
from harness.tuning.objectives import Objective, pareto_front, parse_objective
from trainers.errors import UsageError

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "unfinished", "INTERRUPTED": "interrupted",
          "FAIL": "failed"}  # fmt: skip
"""States of trials in the order of the table, and their words."""
FILES = ("results.json", "results.csv", "results.md")
LISTED = 200
"""Trials that a terminal lists; all are in the CSV."""
ERRORS = 20
"""Failures that a summary names."""


@dataclass(frozen=True)
class Row:
    """One trial in a table."""

    number: int
    state: str
    best: float | None
    """Best value of the objective over its reports."""
    best_step: int | None
    step: int
    values: Mapping[str, Value]
    """What was set: dotted config paths of the space, and values."""
    config_hash: str
    error: str | None
    """Last line of the reason, where it failed."""
    start_s: float | None
    """From the trial's submission to the end of its first step, in seconds."""
    report_s: float | None
    """What a report cost the training, its checkpoint aside, in seconds; median."""
    final: Mapping[str, float] = field(default_factory=dict)
    """Objectives at the last report, by metric."""


@dataclass(frozen=True)
class Results:
    """A search or a single training that ended."""

    name: str
    kind: str
    preset: str
    space: str | None
    metric: str
    horizon: int
    elapsed_s: float
    tracking_uri: str
    paths: Sequence[str]
    """Dotted config paths of the columns."""
    rows: Sequence[Row]
    """Best first."""
    objectives: Sequence[str] = ()
    """As `METRIC:max` or `METRIC:min`, the primary one first; none: `metric` is maximised."""
    ours: bool = False
    """Whether trial 1 is the second configuration of the space (`Space.ours`)."""
    reason: str | None = None
    """Why the session ended before all trials were over; none where they are."""
    published: bool = True
    """Whether the space says where its baseline comes from."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results with their summary as JSON-able values."""
        best = asdict(self.best) if self.best else None
        derived = {"counts": self.counts, "best": best, "overheads": self.overheads, "front": self.front}
        return {**asdict(self), **derived}

    @property
    def others(self) -> list[str]:
        """Metrics of the objectives besides the primary one."""
        return [text.rpartition(":")[0] for text in self.objectives[1:]]

    @property
    def front(self) -> list[int]:
        """Numbers of the complete trials that no other one beats in every objective; none for one objective."""
        if not self.others:
            return []
        objectives = [parse_objective(text) for text in self.objectives]
        whole = [row for row in self.rows if row.state == "COMPLETE" and len(row.final) == len(objectives)]
        points = [[row.final[objective.metric] for objective in objectives] for row in whole]
        return sorted(whole[index].number for index in pareto_front(points, objectives))

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by state, in the order of the table."""
        states = [row.state for row in self.rows]
        return {state: states.count(state) for state in STATES if state in states}

    @property
    def best(self) -> Row | None:
        """The best trial that reached the horizon."""
        return next((row for row in self.rows if row.state == "COMPLETE" and row.best is not None), None)

    @property
    def baseline(self) -> Row | None:
        """Trial 0 of a search, the configuration that it is measured against."""
        return next((row for row in self.rows if row.number == 0), None) if self.kind == "search" else None

    @property
    def baseline_name(self) -> str:
        """What the baseline may be called."""
        return "published baseline" if self.published else "baseline"

    @property
    def starts(self) -> dict[str, Row]:
        """The configurations that a search starts from, by name: the (published) baseline, and the space's own."""
        rows = {f"the {self.baseline_name}": self.baseline}
        if self.ours:
            rows["ours"] = next((row for row in self.rows if row.number == 1), None)
        return {name: row for name, row in rows.items() if row is not None}

    @property
    def overheads(self) -> dict[str, float | None]:
        """Medians over trials, in seconds."""
        return {name: _median(getattr(row, name) for row in self.rows) for name in ("start_s", "report_s")}


class Collector:
    """A `TrialObserver` that keeps the trials, also those of a search that is interrupted."""

    def __init__(self, earlier: Iterable[Trial] = ()) -> None:
        """Begin with the trials of earlier sessions."""
        self.trials: dict[int, Trial] = {trial.number: trial for trial in earlier}
        self._overheads: dict[tuple[int, str], list[float]] = {}

    def on_start(self, trial: Trial) -> None:
        """Keep the trial."""
        self.trials[trial.number] = trial

    def on_report(self, trial: Trial) -> None:
        """Keep what starting and reporting cost; not every report says it."""
        self.trials[trial.number] = trial
        for name in ("start_s", "report_s"):
            if f"overhead/{name}" in trial.metrics:
                self._overheads.setdefault((trial.number, name), []).append(trial.metrics[f"overhead/{name}"])

    on_end = on_start

    def rows(self, paths: Sequence[str], objectives: Sequence[Objective] = ()) -> list[Row]:
        """Return the table's rows, best first, with a column a config path; without objectives more is better."""
        metrics = [objective.metric for objective in objectives]
        rows = [self._row(trial, paths, metrics) for trial in self.trials.values()]
        return ranked(rows, maximise=not objectives or objectives[0].maximise)

    def _row(self, trial: Trial, paths: Sequence[str], metrics: Sequence[str]) -> Row:
        return Row(
            number=trial.number,
            state=str(trial.state),
            best=trial.best.get("value"),
            best_step=int(trial.best["step"]) if "step" in trial.best else None,
            step=trial.step,
            values={path: trial.overrides[path] for path in paths if path in trial.overrides},
            config_hash=trial.config_hash,
            error=last_line(trial.error) if trial.error else None,
            start_s=_median(self._overheads.get((trial.number, "start_s"), [])),
            report_s=_median(self._overheads.get((trial.number, "report_s"), [])),
            final={metric: trial.metrics[metric] for metric in metrics if metric in trial.metrics},
        )


def ranked(rows: Sequence[Row], maximise: bool = True) -> list[Row]:
    """Return the rows best first: complete ones, then the others by state and value."""
    order, sign = [*STATES], -1 if maximise else 1
    values = {row.number: math.inf if row.best is None else sign * row.best for row in rows}
    return sorted(rows, key=lambda row: (order.index(row.state), values[row.number], row.number))


def to_table(results: Results) -> Table:
    """Return the leaderboard: all trials, best first, the best one strong; its CSV has errors and hashes, too."""
    front = results.front
    others = [*results.others, "front"] if results.others else []
    columns = [Column("rank", weight=2), Column("trial", weight=2), Column(results.metric, form=".4f", weight=2),
               Column("at step", weight=1), Column("steps", weight=2), Column("state", weight=2),
               *(Column(name, weight=1) for name in others),
               *map(Column, short(results.paths), results.paths)]  # fmt: skip
    rows, exact, styles = list[list[Cell]](), list[list[Cell]](), dict[int, str]()
    names = {row.number: f"{row.number} ({name.rpartition(' ')[2]})" for name, row in results.starts.items()}
    for index, row in enumerate(results.rows):
        rank = index + 1 if row.best is not None and row.state != "FAIL" else None
        label = names.get(row.number, str(row.number))
        course = [row.best, row.best_step, row.step, row.state, *(row.final.get(metric) for metric in results.others)]
        if results.others:
            course.append("yes" if row.number in front else "")
        values = [row.values.get(path) for path in results.paths]
        rows.append([rank, label, *course, *values])
        exact.append([rank, row.number, *course, *values, row.config_hash, row.error])
        if row.state == "FAIL":
            styles[index] = "red"
    strong = frozenset(index for index, row in enumerate(results.rows) if row is results.best)
    titles = [*(column.name or column.title for column in columns), "config_hash", "error"]
    return Table(
        "leaderboard", "", columns, rows, strong, exact=Data(titles, exact), styles=styles, listed=LISTED
    )  # fmt: skip


def to_markdown(results: Results) -> str:
    """Return the table under whole config paths, and its summary, as Markdown."""
    table = to_table(results)
    columns = [replace(column, title=column.name or column.title) for column in table.columns]
    text = table_markdown(replace(table, columns=columns, shown=len(table.rows)))
    return f"# {results.name}\n\n{text}\n\n" + "".join(f"- {line}\n" for line in summary(results))


def short(paths: Sequence[str]) -> list[str]:
    """Return the last part of each config path, or the whole path where others end alike."""
    leaves = [path.rsplit(".", 1)[-1] for path in paths]
    return [leaf if leaves.count(leaf) == 1 else path for leaf, path in zip(leaves, paths, strict=True)]


def summary(results: Results) -> list[str]:
    """Return what the table amounts to, in a few lines."""
    states = ", ".join(f"{count} {STATES[state]}" for state, count in results.counts.items())
    lines = [
        f"{counted(len(results.rows), 'trial')}{f' ({states})' if states else ''} in {duration(results.elapsed_s)}"
    ]
    best = results.best
    if results.kind == "train" and results.rows:
        lines = [_course(results, results.rows[0])]
    elif best is not None and best.best is not None:
        line = f"best: trial {best.number}, {results.metric} {best.best:.4f} at step {best.best_step}"
        line += "".join(f", {name}" for name, row in results.starts.items() if row is best)
        others = compared(results)
        lines.append(f"{line}; {'; '.join(others)}, one seed each" if others else line)
    if results.others:
        numbers = ", ".join(str(number) for number in results.front) or "none"
        lines.append(f"Pareto front of {', '.join(results.objectives)}: trials {numbers}")
    over = results.overheads
    if over["start_s"] is not None and over["report_s"] is not None:
        start = f"{duration(over['start_s'])} from a trial's submission to the end of its first step"
        lines.append(f"overhead (medians): {start}, {duration(over['report_s'])} a report")
    ends = {"FAIL": "failed", "PRUNED": "was stopped"}
    ended = [row for row in results.rows if row.error and row.state in ends and results.kind != "train"]
    lines += [f"trial {row.number} {ends[row.state]}: {row.error}" for row in ended[:ERRORS]]
    return lines + ([f"{len(ended) - ERRORS} more failed or were stopped: {FILES[1]}"] if ended[ERRORS:] else [])


def _course(results: Results, row: Row) -> str:
    """Return what became of a single training, in a sentence."""
    way = f"{row.step} of {counted(results.horizon, 'step')} in {duration(results.elapsed_s)}"
    line = f"{results.name}: {'trained' if row.state == 'COMPLETE' else f'{STATES[row.state]} after'} {way}"
    if row.best is not None:
        line += f"; the best {results.metric} is {row.best:.4f}, at step {row.best_step}"
        last = row.final.get(results.metric)
        line += "" if last is None or row.best_step == row.step else f", and {last:.4f} at the end"
    return f"{line}; {row.error}" if row.error else line


def best_values(results: Results) -> list[str]:
    """Return what the best trial set, a config path and its value a line; nothing where no trial is complete."""
    values = results.best.values if results.best else {}
    longest = max(map(len, values), default=0)
    return [f"{path:{longest}}  {Column(path).text(values[path])}" for path in results.paths if path in values]


def compared(results: Results) -> list[str]:
    """Return how far the best trial is from each configuration that the search started from and that is not the best.

    A configuration that did not reach the horizon is none to compare with.
    """
    best = results.best
    return [
        f"{name} {row.best:.4f} ({best.best - row.best:+.4f})"
        for name, row in results.starts.items()
        if best and best.best is not None and row is not best and row.state == "COMPLETE" and row.best is not None
    ]


def lead(results: Results) -> str:
    """Return the result in a sentence."""
    best = results.best
    if best is None or best.best is None:
        begun = f"{len(results.rows)} {'was' if len(results.rows) == 1 else 'were'} begun"
        return f"No trial reached the horizon of {results.horizon} steps yet; {begun}."
    value = f"{results.metric} {best.best:.4f} at step {best.best_step}"
    if results.kind == "train":
        return f"The training reached {value} of {results.horizon}."
    others = compared(results)
    if results.baseline is best:
        text = f"Nothing beat the {results.baseline_name}: trial 0 is the best with {value}"
    else:
        name = ", ours," if results.starts.get("ours") is best else ""
        text = f"Trial {best.number}{name} is the best with {value}"
        told = any(other.startswith(f"the {results.baseline_name}") for other in others)
        if results.baseline is not None and not told:  # in a shared study another driver may have it
            others = [*others, f"the {results.baseline_name} did not reach the horizon"]
    return f"{'; '.join([text, *others])}."


def candidates(results: Results, top: int) -> list[Row]:
    """Return the best complete trials of a search that differ from the baseline and from each other.

    Raises:
        UsageError: the search has too few such trials.
    """
    hashes = {results.baseline.config_hash} if results.baseline else set()
    rows = []
    for row in results.rows:
        if row.state == "COMPLETE" and row.number != 0 and row.config_hash not in hashes:
            hashes.add(row.config_hash)
            rows.append(row)
    if not rows:
        must = "a search must have complete trials beside the baseline to be confirmed"
        raise UsageError(f"{must}, {results.name} has none: let it go on, with more --trials")
    if top > len(rows):
        trials = f"{len(rows)} complete trials of {results.name} that differ from the baseline and each other"
        raise UsageError(f"--top must be at most the {trials}, got {top}: lower it")
    return rows[:top]


def write_results(folder: Path, results: Results) -> None:
    """Write results.json, results.csv and results.md into the folder, each whole or not at all."""
    texts = (json.dumps(results.to_dict(), indent=1) + "\n", table_csv(to_table(results)), to_markdown(results))
    for name, text in zip(FILES, texts, strict=True):
        write_whole(folder / name, text)


def read_results(folder: Path) -> Results:
    """Return the results that `write_results` left in the folder.

    Raises:
        UsageError: there are none, or they were written by something else.
    """
    path = folder / FILES[0]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in data.pop("rows")]
        for key in ("counts", "best", "overheads", "front"):
            data.pop(key, None)
        return Results(**data, rows=rows)
    except FileNotFoundError:
        raise UsageError(f"results must lie in {path}, there are none: is the search still running?") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"results must be those of `s4 tune` or `s4 train`, {path} is not: {error}") from None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
