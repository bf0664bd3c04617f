"""Tables, files and the curve of a scaling measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from harness.formats import counted
from harness.run_folder import write_whole
from harness.scaling.model import Fit, Point, Prediction
from harness.tables import Cell, Column, Data, Table, table_csv, table_markdown

FILES = ("scale.json", "scale.csv", "scale.md")
CURVE = "scale.png"
BUSY_CORES = 0.3
"""CPUs that other processes may keep busy before the table warns."""
COLUMNS = (
    Column("workers", align="right"),
    Column("images/s", form=".1f"),
    Column("efficiency", form=".3f"),
    Column("over repeats", align="right"),
    *(Column(f"{part} ms", form=".2f") for part in ("step", "compute", "communication", "transfer", "input")),
    Column("bytes a step"),
    Column("peak memory MiB", form=".0f"),
    Column("others' cores", form=".2f"),
)
PREDICTED_COLUMNS = COLUMNS[:5]
EXACT = (
    "images_per_s", "efficiency", "step_s", "compute_s", "communication_s", "transfer_s", "input_s", "bytes_per_step",
    "peak_memory_bytes", "others_cores",
)  # fmt: skip
"""Columns of the CSV file after `workers` and `kind`."""
BYTES = {
    "gradients": "gradients",
    "prototypes": "K x (D + 1) numbers for prototypes",
    "statistics": "BatchNorm's statistics",
    "sums": "sums that losses are divided by",
}
"""Of a step, by content."""


@dataclass(frozen=True)
class Scaling:
    """A measurement: its request and its results."""

    name: str
    request: Mapping[str, Any]
    """`ScaleRequest.as_plain`."""
    unit: str
    """What a worker has one of: `CPU` (one thread) or `GPU`."""
    hosts: int
    """Nodes of the cluster that can hold workers."""
    points: tuple[Point, ...]
    fit: Fit | None
    unfitted: str
    """Why there is no fit, "" where there is one."""
    tracking_uri: str

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """Of the fit."""
        return self.fit.predictions if self.fit else ()

    @property
    def rows(self) -> list[Point | Prediction]:
        """The points, then the predictions."""
        return [*self.points, *self.predictions]


def lines(scaling: Scaling) -> list[str]:
    """Return what the tables amount to, in a few lines."""
    request, device = scaling.request, "GPU" if scaling.unit == "GPU" else "CPU thread"
    summary = [
        f"{request['mode']} scaling of {request['preset']}: a batch of {request['labelled_batch']} + "
        f"{request['unlabelled_batch']} images is that of {request['batch_of']}; "
        f"{counted(request['repeats'], 'repeat')} of {counted(request['blocks'], 'block')} of "
        f"{counted(request['steps'], 'step')} after {request['warmup']} that do not count; one "
        f"{device} a worker, {counted(scaling.hosts, 'host')}"
    ]
    point = next((point for point in scaling.points if point.workers > 1), None)
    if point is not None:
        expected = point.bytes_expected
        parts = " + ".join(f"{expected[name]} {title}" for name, title in BYTES.items() if expected[name])
        summary.append(
            f"a worker sends {point.bytes_per_step} bytes a step in {point.collectives} messages, counted: {parts}; "
            f"{point.bytes_unexplained} without a name"
        )
    busy = max(point.others_cores for point in scaling.points)
    if busy > BUSY_CORES:
        summary.append(f"BUSY MACHINE: other processes kept up to {busy:.1f} cores busy meanwhile; measure again")
    return [*summary, *(_model_lines(scaling.fit) if scaling.fit else [f"no model: {scaling.unfitted}"])]


def _model_lines(fit: Fit) -> list[str]:
    values, model = fit.model.parameters, fit.model
    bandwidth = "none that shows" if model.bandwidth is None else f"{model.bandwidth / 1e9:.3g} GB/s"
    computing = [name for name in ("fixed_s", "compute_s") if name in values]
    compute = " and ".join(f"{1000 * values[name]:.2f} ms ({name[:-2]})" for name in computing)
    errors = ", ".join(f"{100 * error:+.1f} % at {workers}" for workers, error in fit.errors.items())
    summary = [
        f"model: {compute}, {1e6 * values['latency_s']:.0f} us a hop, bandwidth {bandwidth}; "
        f"error on the points {errors}; on the messages alone {100 * fit.link_error:.0f} % (median)"
    ]
    if fit.held_out is not None:
        workers, error = fit.held_out
        summary.append(
            f"extrapolation, checked: fitted without {workers} workers, their step is {100 * error:+.1f} % off"
        )
    if fit.predictions:
        summary.append("PREDICTIONS, not measured: links like the measured ones, no rank slower than another")
    return summary


def measured_table(scaling: Scaling) -> Table:
    """Return the table of the measured points."""
    rows = []
    for point in scaling.points:
        parts = (point.compute_s, point.communication_s, point.transfer_s, point.input_s)
        rest = [point.bytes_per_step, point.peak_memory_bytes / 2**20, point.others_cores]
        rows.append([*_speed_cells(point), *(1000 * seconds for seconds in parts), *rest])
    return Table("measured", "", COLUMNS, rows)


def predicted_table(scaling: Scaling) -> Table:
    """Return the table of the predictions, which may be empty."""
    return Table("predicted", "", PREDICTED_COLUMNS, [_speed_cells(row) for row in scaling.predictions])


def _speed_cells(row: Point | Prediction) -> list[Cell]:
    low, high = row.efficiency_range
    return [row.workers, row.images_per_s, row.efficiency, f"{low:.3f} to {high:.3f}", 1000 * row.step_s]


def to_table(scaling: Scaling) -> Table:
    """Return the table for a terminal; predictions stand below, and say so."""
    measured, count = measured_table(scaling).rows, len(scaling.points)
    empty = [""] * (len(COLUMNS) - len(PREDICTED_COLUMNS))
    predicted = [[f"{workers} (prediction)", *cells, *empty] for workers, *cells in predicted_table(scaling).rows]
    styles = dict.fromkeys(range(count, count + len(predicted)), "dim italic")
    return Table("scaling", "", COLUMNS, [*measured, *predicted], styles=styles, gaps=frozenset({count}))


def to_markdown(scaling: Scaling) -> str:
    """Return tables and summary as Markdown."""
    text = f"# {scaling.name}\n\n{table_markdown(measured_table(scaling))}\n"
    if scaling.predictions:
        text += f"\nPredictions, not measured:\n\n{table_markdown(predicted_table(scaling))}\n"
    return f"{text}\n![measured and predicted]({CURVE})\n\n" + "".join(f"- {line}\n" for line in lines(scaling))


def to_csv(scaling: Scaling) -> str:
    """Return a line for each point and each prediction with full precision; what is not known is empty."""
    kinds = ["measured"] * len(scaling.points) + ["prediction"] * len(scaling.predictions)
    pairs = zip(kinds, scaling.rows, strict=True)
    rows = [[row.workers, kind, *(getattr(row, name, None) for name in EXACT)] for kind, row in pairs]
    return table_csv(Data(["workers", "kind", *EXACT], rows))


def to_json(scaling: Scaling) -> dict[str, Any]:
    """Return everything as JSON-able values."""
    fit = scaling.fit
    return {
        "name": scaling.name,
        "kind": "scale",
        "asked": dict(scaling.request),
        "unit": scaling.unit,
        "hosts": scaling.hosts,
        "points": [{**asdict(point), "bytes_unexplained": point.bytes_unexplained} for point in scaling.points],
        "model": None if fit is None else {
            "parameters": dict(fit.model.parameters),
            "bandwidth_bytes_per_s": fit.model.bandwidth,
            "collectives": fit.model.collectives,
            "bytes_per_step": fit.model.bytes_per_step,
            "errors": {str(workers): error for workers, error in fit.errors.items()},
            "worst_error": fit.worst,
            "link_error": fit.link_error,
            "held_out": None if fit.held_out is None else dict(zip(("workers", "error"), fit.held_out, strict=True)),
        },
        "predictions": [{**asdict(prediction), "prediction": True} for prediction in scaling.predictions],
        "tracking_uri": scaling.tracking_uri,
        "lines": lines(scaling),
    }  # fmt: skip


def write(folder: Path, scaling: Scaling) -> None:
    """Write scale.json, scale.csv and scale.md, each whole or not at all."""
    texts = (json.dumps(to_json(scaling), indent=1) + "\n", to_csv(scaling), to_markdown(scaling))
    for name, text in zip(FILES, texts, strict=True):
        write_whole(folder / name, text)


MEASURED, PREDICTED, IDEAL = "#1f6feb", "#d97706", "#9aa4b2"
STEP_PARTS = {"compute_s": ("computation", "#1f6feb"), "input_s": ("input", "#2da44e"),
         "communication_s": ("communication", "#d97706")}  # fmt: skip


def draw_curve(scaling: Scaling, path: Path) -> None:
    """Write a picture of three panels: images a second, efficiency, and the parts of a step."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    speed, efficiency, parts = figure.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    _draw_speed(speed, scaling)
    _draw_efficiency(efficiency, scaling)
    _draw_parts(parts, scaling.points)
    figure.suptitle(f"{scaling.name}: {scaling.request['mode']} scaling of {scaling.request['preset']}")
    figure.savefig(path, dpi=120)


def _draw_speed(axes: Any, scaling: Scaling) -> None:
    points, rows = scaling.points, scaling.rows
    each = points[0].images_per_s / points[0].workers
    workers = [row.workers for row in rows]
    axes.plot(workers, [each * count for count in workers], color=IDEAL, linestyle=":", label="ideal")
    values = [point.images_per_s for point in points]
    below = [point.images_per_s - point.images_per_s_range[0] for point in points]
    above = [point.images_per_s_range[1] - point.images_per_s for point in points]
    axes.errorbar(workers[: len(points)], values, [below, above], color=MEASURED, marker="o", capsize=3,
                  label="measured, range of repeats")  # fmt: skip
    model = scaling.fit.model if scaling.fit else None
    modelled = [point.images_per_s * point.step_s / model.step_s(point.workers) for point in points] if model else []
    _draw_model(axes, workers, modelled, [prediction.images_per_s for prediction in scaling.predictions])
    _scales(axes, workers, "images per second")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8)


def _draw_efficiency(axes: Any, scaling: Scaling) -> None:
    points, rows = scaling.points, scaling.rows
    workers = [row.workers for row in rows]
    axes.axhline(1, color=IDEAL, linestyle=":")
    for row in rows:
        color = MEASURED if isinstance(row, Point) else PREDICTED
        axes.plot([row.workers] * 2, row.efficiency_range, color=color, marker="_", markersize=8)
    axes.plot(workers[: len(points)], [point.efficiency for point in points], color=MEASURED, marker="o")
    model = scaling.fit.model if scaling.fit else None
    modelled = [model.efficiency(point.workers, points[0].step_s) for point in points] if model else []
    _draw_model(axes, workers, modelled, [prediction.efficiency for prediction in scaling.predictions])
    for row in rows:
        label, place = f"{row.efficiency:.2f}", (row.workers, row.efficiency)
        axes.annotate(label, place, (8, 4), textcoords="offset points", fontsize=8)
    axes.set_ylim(0, 1.25)
    _scales(axes, workers, "efficiency")


def _draw_parts(axes: Any, points: Sequence[Point]) -> None:
    names = [str(point.workers) for point in points]
    bottom = [0.0] * len(names)
    for part, (label, color) in STEP_PARTS.items():
        heights = [1000 * max(0.0, getattr(point, part)) for point in points]
        axes.bar(names, heights, 0.6, bottom, color=color, label=label)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    axes.set(ylim=(0, 1.3 * max(bottom)), xlabel="workers", ylabel="milliseconds of a step")
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _draw_model(axes: Any, workers: list[int], modelled: list[float], predicted: list[float]) -> None:
    """Draw the model through the measured points, which shows its error on them, and beyond."""
    if modelled:
        axes.plot(workers, modelled + predicted, color=PREDICTED, linestyle="--", label="model")
    if predicted:
        axes.plot(workers[-len(predicted) :], predicted, color=PREDICTED, marker="o", markerfacecolor="white",
                  linestyle="none", label="prediction, not measured")  # fmt: skip


def _scales(axes: Any, workers: list[int], title: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(workers[0] / 1.3, workers[-1] * 1.9)
    axes.set_xticks(workers, [str(count) for count in workers])
    axes.minorticks_off()
    axes.set(xlabel="workers", ylabel=title)
    axes.grid(alpha=0.25)
