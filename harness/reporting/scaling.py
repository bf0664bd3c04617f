"""Report of a scaling measurement: its table, its curve, and what its model predicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.formats import counted
from harness.reporting.document import Block, Commands, Document, Note, Picture, Section, Text
from harness.reporting.next_steps import begin_command
from harness.run_folder import RUN, read_run
from harness.scaling.model import Point, Prediction
from harness.scaling.report import CURVE, FILES, measured_table, predicted_table
from harness.tables import Table
from trainers.errors import UsageError

ALT = "Images a second, efficiency, and the parts of a step, each over the number of workers."


def is_scaling(folder: Path) -> bool:
    """Return whether a scaling measurement began in a folder, or its results were copied there."""
    return (folder / FILES[0]).exists() or ((folder / RUN).exists() and read_run(folder).kind == "scale")


def read_scaling(folder: Path) -> Mapping[str, Any] | None:
    """Return what `harness.scaling.report.to_json` left in a folder; none where the measurement ended early.

    Raises:
        UsageError: the file is something else.
    """
    path = folder / FILES[0]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        scaling_tables(data)
        return {**data, "lines": [str(line) for line in data["lines"]]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} must be what s4 scale wrote, it is not: {error}: measure again") from None


def scaling_tables(data: Mapping[str, Any]) -> list[Table]:
    """Return the table of the points, and that of the predictions where there are any."""
    points = [Point(**{name: point[name] for name in Point.__annotations__}) for point in data["points"]]
    rows = [Prediction(**{name: row[name] for name in Prediction.__annotations__}) for row in data["predictions"]]
    caption = "Measured, medians over repeats; efficiency is relative to the first row."
    return [measured_table(points, caption), *([predicted_table(rows, "Predicted, not measured.")] if rows else [])]


def scaling_document(folder: Path) -> Document:
    """Return the report of a measurement; of one that ended early, what it began with and how to measure again."""
    data = read_scaling(folder)
    info = read_run(folder) if (folder / RUN).exists() else None
    begin = [Commands([(begin_command(folder, info), "measures the same")])] if info else list[Block]()
    if data is None:
        text = "It ended before every point was measured, so there is no table: remove the folder and measure again."
        return Document(folder.name, "scaling", "Not measured to the end.",
                        [Section("Overview", [Note(text, "missing"), *begin])])  # fmt: skip
    best = max(data["points"], key=lambda point: float(point["images_per_s"]))
    workers = counted(best["workers"], "worker")
    lead = f"{best['images_per_s']:.1f} images a second with {workers}, efficiency {best['efficiency']:.2f}."
    curve = [Picture("curve", "Measured points with the range of repeats, and the model.", ALT, folder / CURVE)]
    blocks: list[Block] = [*scaling_tables(data), *(curve if (folder / CURVE).exists() else ())]
    first, *notes = (f"{line[0].upper()}{line[1:]}." for line in data["lines"])
    return Document(folder.name, "scaling", lead, [
        Section("Overview", [Text(first), *begin]), Section("Workers", blocks), Section("Model", [*map(Text, notes)]),
    ])  # fmt: skip
