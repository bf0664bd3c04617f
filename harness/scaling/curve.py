"""Draws the scaling curve: what was measured, what is predicted, and where a step's time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.scaling.report import Scaling

MEASURED, PREDICTED, IDEAL = "#1f6feb", "#d97706", "#9aa4b2"
PARTS = {"compute_s": ("computation", "#1f6feb"), "input_s": ("input", "#2da44e"),
         "communication_s": ("communication", "#d97706")}  # fmt: skip


def draw_curve(found: Scaling, path: Path) -> None:
    """Write a picture of three panels: images a second, efficiency, and the parts of a step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    speed, efficiency, parts = figure.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    _speed(speed, found)
    _efficiency(efficiency, found)
    _parts(parts, found)
    figure.suptitle(f"{found.name}: {found.asked['mode']} scaling of {found.asked['preset']}")
    figure.savefig(path, dpi=120)


def _speed(axes: Any, found: Scaling) -> None:
    points, predictions = found.points, found.fit.predictions if found.fit else ()
    workers = [point.workers for point in points]
    everyone = workers + [one.workers for one in predictions]
    each = points[0].images_per_s / points[0].workers
    axes.plot(everyone, [each * count for count in everyone], color=IDEAL, linestyle=":", label="ideal")
    values = [point.images_per_s for point in points]
    errors = [
        [point.images_per_s - point.images_per_s_range[0] for point in points],
        [point.images_per_s_range[1] - point.images_per_s for point in points],
    ]
    axes.errorbar(workers, values, errors, color=MEASURED, marker="o", capsize=3, label="measured, range of repeats")
    modelled = [(count, _model_speed(found, count)) for count in workers] if found.fit else []
    _draw_predictions(axes, modelled, [(one.workers, one.images_per_s) for one in predictions])
    _scales(axes, everyone, "images per second")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8)


def _efficiency(axes: Any, found: Scaling) -> None:
    points, predictions = found.points, found.fit.predictions if found.fit else ()
    everyone = [point.workers for point in points] + [one.workers for one in predictions]
    measured = [(point.workers, point.efficiency) for point in points]
    axes.axhline(1, color=IDEAL, linestyle=":")
    for ends, color in (
        ([(point.workers, point.efficiency_range) for point in points], MEASURED),
        ([(one.workers, one.efficiency_range) for one in predictions], PREDICTED),
    ):
        for workers, (low, high) in ends:
            axes.plot([workers, workers], [low, high], color=color, marker="_", markersize=8)
    axes.plot(*zip(*measured, strict=True), color=MEASURED, marker="o")
    modelled = (
        [(count, found.fit.model.efficiency(count, points[0].step_s)) for count, _ in measured] if found.fit else []
    )
    _draw_predictions(axes, modelled, [(one.workers, one.efficiency) for one in predictions])
    for workers, value in measured + [(one.workers, one.efficiency) for one in predictions]:
        axes.annotate(f"{value:.2f}", (workers, value), (8, 4), textcoords="offset points", fontsize=8)
    axes.set_ylim(0, 1.25)
    _scales(axes, everyone, "efficiency")


def _parts(axes: Any, found: Scaling) -> None:
    names = [str(point.workers) for point in found.points]
    bottom = [0.0] * len(names)
    for part, (label, color) in PARTS.items():
        heights = [1000 * max(0.0, getattr(point, part)) for point in found.points]
        axes.bar(names, heights, 0.6, bottom, color=color, label=label)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    axes.set_ylim(0, 1.3 * max(bottom))
    axes.set_xlabel("workers")
    axes.set_ylabel("milliseconds of a step")
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _draw_predictions(axes: Any, modelled: list[tuple[int, float]], predicted: list[tuple[int, float]]) -> None:
    """Draw the model through the measured points, which shows its error on them, and beyond."""
    if modelled:
        axes.plot(*zip(*modelled, *predicted, strict=True), color=PREDICTED, linestyle="--", label="model")
    if predicted:
        axes.plot(*zip(*predicted, strict=True), color=PREDICTED, marker="o", markerfacecolor="white",
                  linestyle="none", label="prediction, not measured")  # fmt: skip


def _model_speed(found: Scaling, workers: int) -> float:
    """Return the model's images a second at a measured point."""
    assert found.fit is not None  # noqa: S101  # narrows the type; callers have checked
    point = next(point for point in found.points if point.workers == workers)
    return point.images_per_s * point.step_s / found.fit.model.step_s(workers)


def _scales(axes: Any, workers: list[int], title: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(workers[0] / 1.3, workers[-1] * 1.9)
    axes.set_xticks(workers, [str(count) for count in workers])
    axes.minorticks_off()
    axes.set_xlabel("workers")
    axes.set_ylabel(title)
    axes.grid(alpha=0.25)
