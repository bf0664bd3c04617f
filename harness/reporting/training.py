"""What a report shows of a single training: its curves, its classes, its picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.reporting.document import Block, Column, Data, Figure, Note, Picture, Section, Table
from harness.reporting.figures import legend
from harness.reporting.themes import Theme

if TYPE_CHECKING:
    from harness.reporting.record import Record, Reports

PICTURE = "predictions.png"
"""Image, truth, prediction and pseudo-labels; a training leaves one in its folder."""
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
        names = [metric for metric in _names(reports) if metric.startswith(prefix)]
        if names:
            blocks.append(_panels(name, caption, names, reports, prefix))
    return Section("Curves", blocks)


def classes(record: Record) -> Section | None:
    """Return the section on single classes; none where nothing tells of them."""
    reports = record.reports.get(0, {})
    metric = record.results.metric
    prefix = f"{metric.partition('/')[0]}/iou/"
    known = [step for step, metrics in reports.items() if any(name.startswith(prefix) for name in metrics)]
    if not known:
        return None
    best_row = record.results.rows[0] if record.results.rows else None
    at_best = best_row.best_step if best_row is not None and best_row.best_step in known else known[-1]
    names = [name for name in _names(reports) if name.startswith(prefix)]
    rows = [[name.removeprefix(prefix), reports[at_best].get(name), reports[known[-1]].get(name)] for name in names]
    columns = [Column("class"), Column(f"at step {at_best} (best)", name="best", form=".4f"),
               Column(f"at step {known[-1]} (last)", name="last", form=".4f")]  # fmt: skip
    caption = (
        f"Intersection over union of each class on {prefix.partition('/')[0]}; classes that do not occur have none."
    )
    return Section("Classes", [Table("classes", caption, columns, rows, shown=200)])


def predictions(record: Record) -> Section | None:
    """Return the section with the picture that the training left; none where it left none."""
    path = record.folder / PICTURE
    if not path.exists():
        return None
    caption = ("Image, truth, prediction of the teacher, pseudo-labels of the logits and of the representations, and "
               "what both agree on; ignored pixels are light grey.")  # fmt: skip
    return Section("Predictions", [Picture("predictions", caption, "Rows of dev images with maps of classes.", path)])


def _names(reports: Reports) -> list[str]:
    """Return the names of all metrics, in the order in which they were first reported."""
    return list(dict.fromkeys(name for metrics in reports.values() for name in metrics))


def _points(reports: Reports, name: str) -> list[tuple[int, float]]:
    return [(step, metrics[name]) for step, metrics in reports.items() if math.isfinite(metrics.get(name, math.nan))]


def _objective(record: Record, reports: Reports) -> Figure:
    metric = record.results.metric
    points = _points(reports, metric)
    pick = max if record.maximise else min
    best = pick(points, key=lambda point: point[1]) if points else None
    words = f"the best is {best[1]:.4f} at step {best[0]}" if best else "no value is a number"

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        if best is not None:
            axes.plot(*zip(*points, strict=True), color=theme.series[0], marker="o", markersize=3.5, linewidth=1.8)
            axes.scatter(*best, marker="*", s=150, color=theme.best, edgecolors=theme.paper, zorder=5)
            axes.annotate(f"{best[1]:.4f}", best, (0, 9), textcoords="offset points", ha="center", color=theme.ink)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(metric)
        axes.set_xlim(left=0)
        axes.margins(y=0.18)

    return Figure("objective", f"{metric} at each report; {words}.", f"Curve of {metric} over steps; {words}.", paint,
                  Data(["step", metric], [list(point) for point in points]))  # fmt: skip


def _panels(name: str, caption: str, metrics: Sequence[str], reports: Reports, prefix: str) -> Figure:
    """Return a figure with a panel for each last part of the metrics' names: accuracies together, shares together."""
    panels: dict[str, list[str]] = {}
    for metric in metrics:
        parts = metric.removeprefix(prefix).split("/")
        together = len(parts) == 1 and prefix.startswith("train/")
        panels.setdefault("" if together else parts[-1], []).append(metric)
    labels = dict.fromkeys(metric.removeprefix(prefix).split("/")[0] for metric in metrics)
    columns = min(2, len(panels))
    height = -(-len(panels) // columns)

    def paint(canvas: Any, theme: Theme) -> None:
        grid = canvas.subplots(height, columns, squeeze=False).ravel()
        colours = dict(zip(labels, itertools.cycle(theme.series), strict=False))
        handles: dict[str, Any] = {}
        for panel, (leaf, names) in zip(grid, panels.items(), strict=False):
            for metric in names:
                points = _points(reports, metric)
                label = metric.removeprefix(prefix).split("/")[0]
                if points:
                    [line] = panel.plot(*zip(*points, strict=True), color=colours[label], label=label, marker="o",
                                        markersize=2.5)  # fmt: skip
                    handles.setdefault(label, line)
            panel.set_title(leaf.replace("_", " "))
            panel.set_xlim(left=0)
            panel.set_xlabel("optimizer step", fontsize=8)
        for panel in grid[len(panels) :]:
            panel.remove()
        alone = all(len(names) == 1 for names in panels.values()) and len(panels) > 1
        legend(canvas, [] if alone else [*handles.values()])

    rows = [(step, *(values.get(metric) for metric in metrics)) for step, values in reports.items()]
    return Figure(name, caption, f"Curves of {', '.join(metrics)} over optimizer steps.", paint,
                  Data(["step", *metrics], rows), (7.6, 0.7 + (3.1 if height == 1 else 2.3 * height)))  # fmt: skip
