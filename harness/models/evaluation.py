"""An evaluation of a trained model: its numbers as metrics, JSON, tables and files."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import write_whole

if TYPE_CHECKING:
    from rich.table import Table

    from trainers.assess import Assessment

NONE = "-"
JSON, PER_CLASS, CONFUSION, PER_IMAGE = "evaluation.json", "per_class.csv", "confusion.csv", "per_image.npz"


@dataclass(frozen=True)
class Evaluation:
    """A model on a set of images."""

    run: str
    """The model, as people call it."""
    split: str
    """`val`, `dev`, or `folder-NAME`; the prefix of the metrics."""
    step: int
    """Optimizer steps of the model."""
    config_hash: str
    found: Assessment

    @property
    def images_digest(self) -> str:
        """Hash of the names of the images, to tell evaluations on equal sets. 12 hexadecimal digits."""
        return hashlib.sha256("\n".join(sorted(self.found.names)).encode()).hexdigest()[:12]


def metrics_of(found: Assessment, prefix: str) -> dict[str, float]:
    """Return `PREFIX/miou`, `PREFIX/accuracy` (of pixels) and `PREFIX/iou/CLASS` of the classes that occur."""
    per_class = {
        f"{prefix}/iou/{name}": float(value)
        for name, value in zip(found.classes, found.iou, strict=True)
        if value == value
    }
    return {f"{prefix}/miou": found.miou, f"{prefix}/accuracy": found.pixel_accuracy, **per_class}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return all but the matrices as JSON-able values; shares are in [0, 1], null where nothing says anything."""
    found = evaluation.found
    return {
        "run": evaluation.run,
        "split": evaluation.split,
        "step": evaluation.step,
        "config_hash": evaluation.config_hash,
        "images": len(found.names),
        "images_digest": evaluation.images_digest,
        "miou": found.miou,
        "pixel_accuracy": found.pixel_accuracy,
        "classes": class_rows(found),
    }


def class_rows(found: Assessment) -> list[dict[str, Any]]:
    """Return name, iou, recall, precision and pixels (of the truth) of each class; None where nothing says anything."""
    columns = {"iou": found.iou, "recall": found.recall, "precision": found.precision}
    pixels = found.total.sum(axis=1).tolist()
    return [
        {
            "name": name,
            **{key: None if values[at] != values[at] else float(values[at]) for key, values in columns.items()},
            "pixels": pixels[at],
        }
        for at, name in enumerate(found.classes)
    ]


def classes_csv(found: Assessment) -> str:
    """Return a line a class with full precision; missing values are empty."""
    rows = class_rows(found)
    return _csv(["class", *list(rows[0])[1:]], [list(row.values()) for row in rows])


def confusion_csv(found: Assessment) -> str:
    """Return the confusion matrix in pixels, a line a class of the truth."""
    matrix = [[name, *row] for name, row in zip(found.classes, found.total.tolist(), strict=True)]
    return _csv(["truth \\ prediction", *found.classes], matrix)


def to_table(evaluation: Evaluation) -> Table:
    """Return a row a class for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("class")
    for title in ("IoU", "recall", "precision", "share of pixels"):
        table.add_column(title, justify="right")
    rows = class_rows(evaluation.found)
    everything = sum(row["pixels"] for row in rows)
    for row in rows:
        share = row["pixels"] / everything if everything else 0.0
        cells = [NONE if row[key] is None else f"{row[key]:.4f}" for key in ("iou", "recall", "precision")]
        table.add_row(row["name"], *cells, f"{share:.4f}")
    return table


def summary(evaluation: Evaluation) -> str:
    """Return what the evaluation found, in a line."""
    found = evaluation.found
    return (
        f"{evaluation.run} at step {evaluation.step} on {len(found.names)} images of {evaluation.split}: mIoU "
        f"{found.miou:.4f}, pixel accuracy {found.pixel_accuracy:.4f}"
    )


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write the tables, the matrices of the images, and last evaluation.json; each whole or not at all."""
    from trainers.assess import save_assessment

    found = evaluation.found
    save_assessment(folder / PER_IMAGE, found)
    write_whole(folder / PER_CLASS, classes_csv(found))
    write_whole(folder / CONFUSION, confusion_csv(found))
    write_whole(folder / JSON, json.dumps(to_json(evaluation), indent=1) + "\n")


def _csv(head: list[str], rows: list[list[Any]]) -> str:
    """Return a table with full precision; missing values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *(["" if cell is None else cell for cell in row] for row in rows)])
    return text.getvalue()
