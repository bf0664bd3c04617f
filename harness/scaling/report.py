"""What a measurement of scaling found, as table, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import write_whole
from harness.scaling.points import PARTS, Point
from harness.scaling.tables import numbers_table

if TYPE_CHECKING:
    from rich.table import Table

    from harness.scaling.model import Fit

FILES = ("scale.json", "scale.csv", "scale.md")
CURVE = "scale.png"
BUSY_CORES = 0.3
"""CPUs that other processes may keep busy before the table warns."""
COLUMNS = (
    "workers", "images/s", "efficiency", "over repeats", "step ms", "compute ms", "communication ms", "transfer ms",
    "input ms", "bytes a step", "peak memory MiB", "others' cores",
)  # fmt: skip
PREDICTED_COLUMNS = ("workers", "images/s", "efficiency", "over repeats", "step ms")


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


def cells(found: Scaling) -> list[list[str]]:
    """Return the table of the measured points as text, a line a point."""
    return [
        [
            str(point.workers),
            f"{point.images_per_s:.1f}",
            f"{point.efficiency:.3f}",
            _range(point.efficiency_range),
            *(_ms(seconds) for seconds in
              (point.step_s, point.compute_s, point.communication_s, point.transfer_s, point.input_s)),
            f"{point.bytes_per_step}",
            f"{point.peak_memory_bytes / 2**20:.0f}",
            f"{point.others_cores:.2f}",
        ]
        for point in found.points
    ]  # fmt: skip


def predicted_cells(found: Scaling) -> list[list[str]]:
    """Return the table of the predictions as text."""
    return [
        [
            str(one.workers),
            f"{one.images_per_s:.1f}",
            f"{one.efficiency:.3f}",
            _range(one.efficiency_range),
            _ms(one.step_s),
        ]
        for one in (found.fit.predictions if found.fit else ())
    ]


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
        f"{_ms(values[name])} ms ({name[:-2]})" for name in ("fixed_s", "compute_s") if name in values
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


def to_table(found: Scaling) -> Table:
    """Return the table for a terminal; predictions stand below, and say so."""
    table = numbers_table(COLUMNS, cells(found))
    if predicted_cells(found):
        table.add_section()
    for workers, *line in predicted_cells(found):
        table.add_row(f"{workers} (prediction)", *line, style="dim italic")
    return table


def to_markdown(found: Scaling) -> str:
    """Return tables and summary as Markdown."""
    text = f"# {found.name}\n\n{_markdown(COLUMNS, cells(found))}\n"
    if found.fit and found.fit.predictions:
        text += f"\nPredictions, not measured:\n\n{_markdown(PREDICTED_COLUMNS, predicted_cells(found))}\n"
    return f"{text}\n![measured and predicted]({CURVE})\n\n" + "".join(f"- {line}\n" for line in lines(found))


def to_csv(found: Scaling) -> str:
    """Return a line for each point and each prediction with full precision; what is not known is empty."""
    text = io.StringIO()
    names = [
        "images_per_s", "efficiency", "step_s", "compute_s", "communication_s", "transfer_s", "input_s",
        "bytes_per_step", "peak_memory_bytes", "others_cores",
    ]  # fmt: skip
    writer = csv.DictWriter(text, ["workers", "kind", *names], restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for point in found.points:
        writer.writerow({**asdict(point), "kind": "measured"})
    for one in found.fit.predictions if found.fit else ():
        writer.writerow({**asdict(one), "kind": "prediction"})
    return text.getvalue()


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


def _markdown(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    table = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def _device(found: Scaling) -> str:
    return "GPU" if found.unit == "GPU" else "CPU thread"


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"
