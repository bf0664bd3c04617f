"""Sections on a single training: its curves, its classes, its picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from harness.reporting.document import Block, Cell, Column, Data, Figure, Note, Picture, Section, Table, Text
from harness.reporting.figures import ACROSS, NAMED, Curve, best_star, class_handles, legend, paint_panels
from harness.reporting.record import Record, Reports
from harness.reporting.themes import Theme
from harness.run_folder import PICTURE, REPRESENTATIONS, TRIALS, checkpoint_folder
from trainers.config import TrainConfig
from trainers.figure import palette

GROUPS = {
    "train/loss/": ("losses", "Losses of the training batches, unweighted, over the steps since the report before."),
    "train/share/": ("shares", "Shares of pixels that the losses use."),
    "quality/": ("quality", "Pseudo-labels of unlabelled images, against the truth that training never sees."),
    "health/": ("health", "What shows that a training goes astray."),
}
"""Prefixes of metrics, and the figure that shows them."""


def curves(record: Record) -> Section:
    """Return the section of all curves over steps."""
    reports = record.reports.get(0, {})
    if len(reports) < 2:
        return Section("Curves", [Note("Curves need two reports at least.", "missing")])
    blocks: list[Block] = [_objective(record, reports)]
    for prefix, (name, caption) in GROUPS.items():
        lines = {metric: {value for _, value in _points(reports, metric)}
                 for metric in _names(reports) if metric.startswith(prefix)}  # fmt: skip
        moving = [metric for metric, values in lines.items() if len(values) > 1]
        still = [f"{metric.removeprefix(prefix).replace('_', ' ')} ({min(values):.4g})"
                 for metric, values in lines.items() if len(values) == 1]  # fmt: skip
        if moving:
            blocks.append(_panels(name, caption, moving, reports, prefix))
        if still:
            blocks.append(Text(f"The same at every report: {', '.join(still)}."))
    return Section("Curves", blocks)


def classes(record: Record) -> Section | None:
    """Return the section on single classes; none where nothing tells of them."""
    reports = record.reports.get(0, {})
    split = record.results.metric.partition("/")[0]
    prefix = f"{split}/iou/"
    known = [step for step, metrics in reports.items() if any(name.startswith(prefix) for name in metrics)]
    if not known:
        return None
    best = record.results.rows[0].best_step if record.results.rows else None
    at_best = best if best in known else known[-1]
    names = [name for name in _names(reports) if name.startswith(prefix)]
    rows = [[name.removeprefix(prefix), reports[at_best].get(name), reports[known[-1]].get(name)] for name in names]
    columns = [Column("class"), Column(f"at step {at_best} (best)", name="best", form=".4f"),
               Column(f"at step {known[-1]} (last)", name="last", form=".4f")]  # fmt: skip
    caption = f"Intersection over union of each class on {split}; classes that do not occur have none."
    return Section("Classes", [Table("classes", caption, columns, rows, shown=200)])


def predictions(record: Record) -> Section | None:
    """Return the section with the pictures of a training, or of a search's best trial; none where there are none."""
    best, folder = record.results.best, record.folder
    if record.results.kind == "search" and best is not None:
        folder = checkpoint_folder(folder / TRIALS, best.number)
    path, space = folder / PICTURE, folder / REPRESENTATIONS
    if not path.exists():
        return None
    caption = ("Image, truth, prediction of the teacher, pseudo-labels of the logits and of the representations, and "
               "what both agree on; ignored pixels are light grey.")  # fmt: skip
    blocks: list[Block] = [Picture("predictions", caption, "Rows of dev images with maps of classes.", path)]
    names = TrainConfig.model_validate(record.info.config).data.classes if record.info and not record.own else ()
    if 0 < len(names) <= NAMED:
        blocks.append(_colours(names))
    if space.exists():
        caption = ("The teacher's representations of pixels of dev images (dots, by their true class) and the "
                   "prototypes (rings) at some reports, on the two principal axes of the last of them.")  # fmt: skip
        blocks.append(Picture("representations", caption, "Dots and rings of each class, a panel a report.", space))
    return Section("Predictions", blocks)


def _colours(names: Sequence[str]) -> Figure:
    """Return the legend of a picture of classes."""

    def paint(canvas: Any, theme: Theme) -> None:
        legend(canvas, class_handles(names, theme))

    rows: list[list[Cell]] = [
        [name, *map(int, colour)] for name, colour in zip(names, palette(len(names)), strict=False)
    ]
    data = Data(["class", "red", "green", "blue"], rows)
    return Figure("class-colours", "Colours of the classes.", f"Legend of {', '.join(names)}.", paint, data,
                  (7.6, 0.25 + 0.22 * -(-len(names) // ACROSS)))  # fmt: skip


def _names(reports: Reports) -> list[str]:
    """Return the names of all metrics, in the order in which they were first reported."""
    return list(dict.fromkeys(name for metrics in reports.values() for name in metrics))


def _points(reports: Reports, name: str) -> list[tuple[float, float]]:
    return [(step, metrics[name]) for step, metrics in reports.items() if math.isfinite(metrics.get(name, math.nan))]


def _objective(record: Record, reports: Reports) -> Figure:
    metric = record.results.metric
    points = _points(reports, metric)
    pick = max if record.maximise else min
    best = pick(points, key=lambda point: point[1]) if points else None
    words = f"the best is {best[1]:.4f} at step {best[0]}" if best else "no value is a number"

    def paint(canvas: Any, theme: Theme) -> None:
        style = {"color": theme.series[0], "marker": "o", "markersize": 3.5, "linewidth": 1.8}
        [axes] = paint_panels(canvas, [("", [Curve(points, style)])], y_label=metric)
        if best is not None:
            best_star(axes, *best, theme)
            axes.annotate(f"{best[1]:.4f}", best, (0, 9), textcoords="offset points", ha="center", color=theme.ink)
        axes.margins(y=0.18)

    return Figure("objective", f"{metric} at each report; {words}.", f"Curve of {metric} over steps; {words}.", paint,
                  Data(["step", metric], points))  # fmt: skip


def _panels(name: str, caption: str, metrics: Sequence[str], reports: Reports, prefix: str) -> Figure:
    """Return a figure with a panel for each last part of the metrics' names: accuracies together, shares together."""
    titles: dict[str, list[str]] = {}
    for metric in metrics:
        parts = metric.removeprefix(prefix).split("/")
        together = len(parts) == 1 and prefix.startswith("train/")
        titles.setdefault("" if together else parts[-1].replace("_", " "), []).append(metric)
    labels = {metric: metric.removeprefix(prefix).split("/")[0] for metric in metrics}
    alone = len(titles) == len(metrics) > 1
    across = min(2, len(titles))
    down = -(-len(titles) // across)

    def paint(canvas: Any, theme: Theme) -> None:
        colours = dict(zip(dict.fromkeys(labels.values()), itertools.cycle(theme.series), strict=False))

        def curve(metric: str) -> Curve:
            style = {"color": colours[labels[metric]], "marker": "o", "markersize": 2.5}
            return Curve(_points(reports, metric), style, "" if alone else labels[metric])

        panels = [(title, [curve(metric) for metric in names]) for title, names in titles.items()]
        paint_panels(canvas, panels, across)

    rows = [(step, *(values.get(metric) for metric in metrics)) for step, values in reports.items()]
    return Figure(name, caption, f"Curves of {', '.join(metrics)} over optimizer steps.", paint,
                  Data(["step", *metrics], rows), (7.6, 0.7 + (3.1 if down == 1 else 2.3 * down)))  # fmt: skip
