"""Tables, files and the curve of a scaling measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.run_folder import write_whole
from harness.scaling.model import PARTS, Point
from harness.tables import Cell, Column, Data, Table, table_csv, table_markdown

if TYPE_CHECKING:
    from harness.scaling.model import Fit, Prediction

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
    Column("bytes a step", align="right"),
    Column("peak memory MiB", form=".0f"),
    Column("others' cores", form=".2f"),
)
PREDICTED_COLUMNS = COLUMNS[:5]


@dataclass(frozen=True)
class Scaling:
    """What was asked and what was found."""

    name: str
    asked: Mapping[str, Any]
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


def lines(found: Scaling) -> list[str]:
    """Return what the tables amount to, in a few lines."""
    asked = found.asked
    batch = f"{asked['labelled_batch']} + {asked['unlabelled_batch']}"
    said = [
        f"{asked['mode']} scaling of {asked['preset']}: a batch of {batch} images is that of {asked['batch_of']}; "
        f"{asked['repeats']} repeats of {asked['blocks']} blocks of {asked['steps']} steps after {asked['warmup']} "
        f"that do not count; one {_device(found)} a worker, {found.hosts} host{'' if found.hosts == 1 else 's'}"
    ]
    several = [point for point in found.points if point.workers > 1]
    if several:
        said.append(_bytes(several[0]))
    busy = max(point.others_cores for point in found.points)
    if busy > BUSY_CORES:
        said.append(f"BUSY MACHINE: other processes kept up to {busy:.1f} cores busy meanwhile; measure again")
    if found.fit is None:
        return [*said, f"no model: {found.unfitted}"]
    return [*said, *_model(found.fit)]


def _bytes(point: Point) -> str:
    names = {
        "gradients": "gradients",
        "prototypes": "K x (D + 1) numbers for prototypes",
        "statistics": "BatchNorm's statistics",
        "sums": "sums that losses are divided by",
    }
    parts = " + ".join(f"{point.bytes_expected[name]} {names[name]}" for name in PARTS if point.bytes_expected[name])
    return (
        f"a worker sends {point.bytes_per_step} bytes a step in {point.collectives} messages, counted: {parts}; "
        f"{point.bytes_unexplained} without a name"
    )


def _model(fit: Fit) -> list[str]:
    values, model = fit.model.parameters, fit.model
    bandwidth = "none that shows" if model.bandwidth is None else f"{model.bandwidth / 1e9:.3g} GB/s"
    compute = " and ".join(
        f"{1000 * values[name]:.2f} ms ({name[:-2]})" for name in ("fixed_s", "compute_s") if name in values
    )
    errors = ", ".join(f"{100 * error:+.1f} % at {workers}" for workers, error in fit.errors.items())
    said = [
        f"model: {compute}, {1e6 * values['latency_s']:.0f} us a hop, bandwidth {bandwidth}; "
        f"error on the points {errors}; on the messages alone {100 * fit.link_error:.0f} % (median)"
    ]
    if fit.held_out is not None:
        workers, error = fit.held_out
        said.append(f"extrapolation, checked: fitted without {workers} workers, their step is {100 * error:+.1f} % off")
    if fit.predictions:
        said.append("PREDICTIONS, not measured: links like the measured ones, no rank slower than another")
    return said


def measured_table(found: Scaling) -> Table:
    """Return the table of the measured points."""
    rows = [
        [*_speeds(point), *(1000 * seconds for seconds in
                            (point.compute_s, point.communication_s, point.transfer_s, point.input_s)),
         point.bytes_per_step, point.peak_memory_bytes / 2**20, point.others_cores]
        for point in found.points
    ]  # fmt: skip
    return Table("measured", "", COLUMNS, rows)


def predicted_table(found: Scaling) -> Table:
    """Return the table of the predictions, which may be empty."""
    return Table(
        "predicted", "", PREDICTED_COLUMNS, [_speeds(row) for row in (found.fit.predictions if found.fit else ())]
    )


def _speeds(row: Point | Prediction) -> list[Cell]:
    low, high = row.efficiency_range
    return [row.workers, row.images_per_s, row.efficiency, f"{low:.3f} to {high:.3f}", 1000 * row.step_s]


def to_table(found: Scaling) -> Table:
    """Return the table for a terminal; predictions stand below, and say so."""
    measured, count = measured_table(found).rows, len(found.points)
    empty = [""] * (len(COLUMNS) - len(PREDICTED_COLUMNS))
    predicted = [[f"{workers} (prediction)", *cells, *empty] for workers, *cells in predicted_table(found).rows]
    styles = dict.fromkeys(range(count, count + len(predicted)), "dim italic")
    return Table("scaling", "", COLUMNS, [*measured, *predicted], styles=styles, gaps=frozenset({count}))


def to_markdown(found: Scaling) -> str:
    """Return tables and summary as Markdown."""
    text = f"# {found.name}\n\n{table_markdown(measured_table(found))}\n"
    if found.fit and found.fit.predictions:
        text += f"\nPredictions, not measured:\n\n{table_markdown(predicted_table(found))}\n"
    return f"{text}\n![measured and predicted]({CURVE})\n\n" + "".join(f"- {line}\n" for line in lines(found))


def to_csv(found: Scaling) -> str:
    """Return a line for each point and each prediction with full precision; what is not known is empty."""
    names = [
        "images_per_s", "efficiency", "step_s", "compute_s", "communication_s", "transfer_s", "input_s",
        "bytes_per_step", "peak_memory_bytes", "others_cores",
    ]  # fmt: skip
    predictions = found.fit.predictions if found.fit else ()
    rows = [[row.workers, kind, *(getattr(row, name, None) for name in names)]
            for kind, rows in (("measured", found.points), ("prediction", predictions)) for row in rows]  # fmt: skip
    return table_csv(Data(["workers", "kind", *names], rows))


def to_json(found: Scaling) -> dict[str, Any]:
    """Return everything as JSON-able values."""
    points = [{**asdict(point), "bytes_unexplained": point.bytes_unexplained} for point in found.points]
    return {
        "name": found.name,
        "kind": "scale",
        "asked": dict(found.asked),
        "unit": found.unit,
        "hosts": found.hosts,
        "points": points,
        "model": None if found.fit is None else _fit_json(found.fit),
        "predictions": [
            {**asdict(one), "prediction": True} for one in (found.fit.predictions if found.fit else ())
        ],
        "tracking_uri": found.tracking_uri,
        "lines": lines(found),
    }  # fmt: skip


def write(folder: Path, found: Scaling) -> None:
    """Write scale.json, scale.csv and scale.md, each whole or not at all."""
    texts = (json.dumps(to_json(found), indent=1) + "\n", to_csv(found), to_markdown(found))
    for name, text in zip(FILES, texts, strict=True):
        write_whole(folder / name, text)


def _fit_json(fit: Fit) -> dict[str, Any]:
    model = fit.model
    return {
        "parameters": dict(model.parameters),
        "bandwidth_bytes_per_s": model.bandwidth,
        "collectives": model.collectives,
        "bytes_per_step": model.bytes_per_step,
        "errors": {str(workers): error for workers, error in fit.errors.items()},
        "worst_error": fit.worst,
        "link_error": fit.link_error,
        "held_out": None if fit.held_out is None else {"workers": fit.held_out[0], "error": fit.held_out[1]},
    }


def _device(found: Scaling) -> str:
    return "GPU" if found.unit == "GPU" else "CPU thread"


MEASURED, PREDICTED, IDEAL = "#1f6feb", "#d97706", "#9aa4b2"
STEP_PARTS = {"compute_s": ("computation", "#1f6feb"), "input_s": ("input", "#2da44e"),
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
    for part, (label, color) in STEP_PARTS.items():
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
