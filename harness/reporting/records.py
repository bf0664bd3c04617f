"""What MLflow shows of a run beside its trials: what was asked for, notes, results, and the views of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from harness.ablation.results import Ablation
from harness.ablation.run import to_table as ablation_table
from harness.reporting.best import write_best
from harness.reporting.document import FOLDER, PAGE
from harness.reporting.results import Results, lead, to_table
from harness.run_folder import (
    CONFIG,
    LATEST,
    PICTURE,
    REPRESENTATIONS,
    TRIALS,
    RunInfo,
    checkpoint_folder,
    write_whole,
)
from harness.tables import Column, Table, table_markdown
from harness.tracking.limits import clean_name
from harness.tracking.run_logger import CHAMPION, FILES, HERE, NOTE_LENGTH, RunLogger
from harness.tracking.source import command_line
from harness.tracking.stores import EXPERIMENT, NOTE
from harness.tracking.views import CURVES, Chart
from harness.trials import Experiment, Trial, Value
from search_spaces import Space

TOP = 5
"""Trials in the note of a search."""
MOST_PARAMS = 6
"""Columns of params there: MLflow's page has no room for more."""
FOREST = "forest.png"
"""Figure of an ablation's differences, in the folder of the run."""


def params_of(info: RunInfo, space: Space | None) -> dict[str, Value]:
    """Return what a search or a training was asked for, as params of its run."""
    params: dict[str, Value] = {"preset": info.preset, "horizon": info.horizon}
    if space is not None:
        options = info.request.get("options", {})
        params |= {"space": space.name, "seed": info.config.get("seed")}
        params |= {key: options[key] for key in ("trials", "sampler", "scheduler") if key in options}
        params |= {"sampler_seed": options.get("seed")}
    return params


def differences_to(baseline: Mapping[str, Value]) -> Callable[[Trial], Mapping[str, str]]:
    """Return a function that tags a trial with what it sets otherwise than the baseline of its search."""

    def tags(trial: Trial) -> Mapping[str, str]:
        form = Column("").text
        lines = [
            f"- `{path}` = {form(value)}" + (f" (baseline: {form(baseline[path])})" if path in baseline else "")
            for path, value in trial.overrides.items()
            if path not in baseline or baseline[path] != value
        ]
        said = "\n".join(["Differs from the baseline in", "", *lines])
        return {NOTE: said if lines else "The baseline."}

    return tags


def search_note(results: Results, report: bool) -> str:
    """Return the note of a search or a training; `report`: whether MLflow has its report."""
    page = f"{FOLDER}/{PAGE}" if report else None
    if results.kind != "search":
        return _note(lead(results), None, results.name, page)
    best = replace(results, paths=results.paths[:MOST_PARAMS], rows=results.rows[:TOP])
    return _note(lead(results), without(to_table(best), ("rank", "steps")), results.name, page)


def record_verdict(recorder: RunLogger, folder: Path, ablation: Ablation, report: bool) -> None:
    """Record the note of an ablation or a confirmation, with the figure of its differences.

    Args:
        report: whether MLflow has its report.
    """
    from PIL import Image

    whole, small = folder / FOLDER / "figures" / "forest-light.png", folder / FOREST
    shown = report and whole.exists()
    if shown:
        with Image.open(whole) as figure:
            figure.reduce(2).save(small)  # MLflow shows pictures in notes as large as they are
        recorder.file(small)
    recorder.note(ablation_note(ablation, report, FOREST if shown else None))


def ablation_note(ablation: Ablation, report: bool, figure: str | None = None) -> str:
    """Return the note of an ablation or a confirmation, with an artifact of the run as its figure."""
    from harness.reporting.ablation.overview import lead as ablation_lead  # imports matplotlib

    table = without(ablation_table(ablation), ("std", "p", "search", "lower bound"))
    page = f"{FOLDER}/{PAGE}" if report else None
    return _note(ablation_lead(ablation), table, ablation.name, page, figure)


def without(table: Table, titles: Collection[str]) -> Table:
    """Return a table with all its rows and without the columns of these titles."""
    kept = [index for index, column in enumerate(table.columns) if column.title not in titles]
    rows = [[row[index] for index in kept] for row in table.rows]
    columns = [table.columns[index] for index in kept]
    return Table(table.name, "", columns, rows, table.strong, shown=len(rows))


def _note(said: str, table: Table | None, name: str, page: str | None, figure: str | None = None) -> str:
    """Return a note; its table is left out where there is no room for it."""
    report = f"[the report]({HERE}/artifacts/{page})" if page else f"`s4 report {name}` writes a report"
    end = f"    {command_line()}\n\nMore: {report}; `s4 ui {name}` prints links to tables and curves.\n"
    if figure:
        end += f"\n![differences to the base]({FILES}{figure})\n"
    text = f"{said}\n\n{table_markdown(table)}\n\n{end}" if table else ""
    return text if 0 < len(text) <= NOTE_LENGTH else f"{said}\n\n{end}"


def record_search(
    recorder: RunLogger, folder: Path, info: RunInfo, space: Space | None, results: Results, reported: Collection[str]
) -> None:
    """Record the results of a search or a training, its note and its views.

    Args:
        reported: names of the metrics that any trial reported.
    """
    if space is not None:
        _prepare_view(recorder, results, reported)
    if (best := write_best(folder, info, results)) is not None:
        recorder.artifact(best.name, best.read_text(encoding="utf-8"))
    for file in ("results.csv", "results.md"):
        recorder.artifact(file, (folder / file).read_text(encoding="utf-8"))
    for picture in (PICTURE, REPRESENTATIONS):
        if (folder / picture).exists():
            recorder.file(folder / picture)
    recorder.note(search_note(results, report=False))


def record_best(
    recorder: RunLogger, folder: Path, experiment: Experiment, results: Results, trials: Mapping[int, Trial]
) -> str:
    """Register the teacher of a search's best trial, or of a training, and return what became of it, in a line."""
    best = results.best
    if best is None:
        return "nothing is registered: no trial reached the horizon"
    home = folder if results.kind == "train" else checkpoint_folder(folder / TRIALS, best.number)
    if not (home / LATEST).exists():
        return f"nothing is registered: the checkpoint of trial {best.number} is not in {home}"
    config, _ = experiment.resolve(trials[best.number].overrides)
    write_whole(home / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
    tags = {"s4.search": results.name, "s4.trial": best.number, "s4.objective": results.metric}
    name, metrics = f"{EXPERIMENT}-{results.name}", {results.metric: best.final.get(results.metric, math.nan)}
    recorder.register(name, home / LATEST, home / CONFIG, best.number, tags=tags, metrics=metrics)
    return f"registered: trial {best.number} as models:/{name}@{CHAMPION}"


def _prepare_view(recorder: RunLogger, results: Results, reported: Collection[str]) -> None:
    """Prepare the page of a search's trials: their scores and params in the table, and charts of both."""
    metrics = [results.metric, *results.others]
    best, paths = f"best/{clean_name(results.metric).replace('/', '_')}", [clean_name(path) for path in results.paths]
    charts = [Chart(best, "PARALLEL", paths), Chart(best, "BAR")]
    charts += [Chart(name, "LINE") for name in dict.fromkeys([*metrics, *CURVES]) if name in reported]
    columns = [f"metrics.{best}", "tags.s4.state", *(f"params.{path}" for path in paths)]
    columns += [f"metrics.{clean_name(name)}" for name in metrics]
    recorder.view("runs", "tags.`s4.kind` = 'trial'", best, charts, columns)


def record_beginning(
    recorder: RunLogger, experiment: Experiment, folder: Path, config: Mapping[str, Any], val: bool = False
) -> None:
    """Record what a run reads, its config, and, until there are results, the command that began it."""
    experiment.record_inputs(recorder, folder, val=val)
    recorder.artifact("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
    recorder.note(f"Not over yet, or ended before its results were known.\n\n    {command_line()}\n")
