"""An evaluation of a trained model: metrics, JSON, tables, files and pictures."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from harness.run_folder import write_whole
from harness.tables import Column, Data, Table, table_csv
from trainers.data.source import ImageSource
from trainers.drafts import draft_of
from trainers.evaluate import predictions
from trainers.figure import overlay
from trainers.image_evaluation import ImageEvaluation, save_image_evaluation
from trainers.loader import numbered_groups
from trainers.local_run import LocalRun
from trainers.models.served import Segmenter
from trainers.predict import mask_image, write_png

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
    images: ImageEvaluation


def metrics_of(images: ImageEvaluation, prefix: str) -> dict[str, float]:
    """Return `PREFIX/miou`, `PREFIX/accuracy` (of pixels) and `PREFIX/iou/CLASS` of the classes that occur."""
    known = [(name, float(value)) for name, value in zip(images.classes, images.iou, strict=True) if value == value]
    per_class = {f"{prefix}/iou/{name}": value for name, value in known}
    return {f"{prefix}/miou": images.miou, f"{prefix}/accuracy": images.pixel_accuracy, **per_class}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return all but the matrices as JSON-able values; shares are in [0, 1], null where nothing says anything."""
    images = evaluation.images
    digest = hashlib.sha256("\n".join(sorted(images.names)).encode()).hexdigest()[:12]  # equal on equal sets
    return {
        "run": evaluation.run,
        "split": evaluation.split,
        "step": evaluation.step,
        "config_hash": evaluation.config_hash,
        "images": len(images.names),
        "images_digest": digest,
        "miou": images.miou,
        "pixel_accuracy": images.pixel_accuracy,
        "classes": class_rows(images),
    }


def class_rows(images: ImageEvaluation) -> list[dict[str, Any]]:
    """Return name, iou, recall, precision and pixels (of the truth) of each class; None where nothing says anything."""
    columns = {"iou": images.iou, "recall": images.recall, "precision": images.precision}
    pixels, rows = images.total.sum(axis=1).tolist(), []
    for at, name in enumerate(images.classes):
        scores = {key: None if values[at] != values[at] else float(values[at]) for key, values in columns.items()}
        rows.append({"name": name, **scores, "pixels": pixels[at]})
    return rows


def classes_csv(images: ImageEvaluation) -> str:
    """Return a line a class with full precision; missing values are empty."""
    rows = class_rows(images)
    return table_csv(Data(["class", *list(rows[0])[1:]], [list(row.values()) for row in rows]))


def confusion_csv(images: ImageEvaluation) -> str:
    """Return the confusion matrix in pixels, a line a class of the truth."""
    matrix = [[name, *row] for name, row in zip(images.classes, images.total.tolist(), strict=True)]
    return table_csv(Data(["truth \\ prediction", *images.classes], matrix))


def to_table(evaluation: Evaluation) -> Table:
    """Return a row a class."""
    columns = [Column("class"), *(Column(title, form=".4f") for title in
                                  ("IoU", "recall", "precision", "share of pixels"))]  # fmt: skip
    rows = class_rows(evaluation.images)
    everything = sum(row["pixels"] for row in rows) or 1
    return Table("classes", "", columns, [
        [row["name"], row["iou"], row["recall"], row["precision"], row["pixels"] / everything] for row in rows
    ])  # fmt: skip


def summary(evaluation: Evaluation) -> str:
    """Return the scores in a line."""
    images = evaluation.images
    model = f"{evaluation.run} at step {evaluation.step} on {len(images.names)} images of {evaluation.split}"
    return f"{model}: mIoU {images.miou:.4f}, pixel accuracy {images.pixel_accuracy:.4f}"


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write the tables, the matrices of the images, and last evaluation.json; each whole or not at all."""
    images = evaluation.images
    save_image_evaluation(folder / PER_IMAGE, images)
    write_whole(folder / PER_CLASS, classes_csv(images))
    write_whole(folder / CONFUSION, confusion_csv(images))
    write_whole(folder / JSON, json.dumps(to_json(evaluation), indent=1) + "\n")


NAMED, NUMBERED = 40, 21
"""Most classes whose names fit beside the matrix, and whose shares fit into it."""


def draw_confusion(images: ImageEvaluation, path: Path, title: str) -> None:
    """Write the confusion matrix as a PNG; each row is divided by the pixels that truly are of its class.

    Rows of classes that do not occur are empty.
    """
    count = len(images.classes)
    total = images.total.astype(np.float64)
    truly = total.sum(axis=1, keepdims=True)
    shares = np.divide(total, truly, out=np.full_like(total, np.nan), where=truly > 0)
    side = max(4.5, min(14.0, 0.55 * count + 2))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="truth", title=title)
    if count <= NAMED:
        axes.set_xticks(range(count), images.classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), images.classes)
    if count <= NUMBERED:
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            value = shares[row, column]
            colour = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}"[1:] if value < 0.995 else "1", ha="center", va="center",
                      color=colour, fontsize=8)  # fmt: skip
    figure.colorbar(image, ax=axes, label="share of the class's pixels", shrink=0.85)
    with draft_of(path) as draft:
        figure.savefig(draft, dpi=110, format="png")


def draw_images(segmenter: Segmenter, source: ImageSource, folder: Path, count: int) -> None:
    """Write masks/NAME.png and overlays/NAME.png of the first `count` images: of the latter the left half is the truth.

    Masks hold class indices, at the size at which the images are stored.
    """
    config, classes = segmenter.config, len(segmenter.classes)
    run = LocalRun(device=segmenter.device)
    with torch.no_grad():
        for (index,), (images, truth) in numbered_groups(source, range(min(count, len(source))), 1, run):
            label = next(predictions(segmenter.network, images, config)).cpu().numpy().astype(np.uint8)
            image = (images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            mask = truth[0].cpu().numpy().astype(np.uint8)
            write_png(folder / "masks" / f"{source.names[index]}.png", mask_image(label, classes))
            both = [overlay(image, labels, classes) for labels in (mask, label)]
            write_png(folder / "overlays" / f"{source.names[index]}.png", Image.fromarray(np.concatenate(both, axis=1)))
