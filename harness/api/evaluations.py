"""Trained models, scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.console import Console, make_console

if TYPE_CHECKING:
    from harness.models.evaluation import Evaluation


def evaluate(
    run: str,
    *,
    split: Literal["val", "dev", "test"] = "val",
    folder: Path | None = None,
    out: Path | None = None,
    pictures: int | None = 8,
    record: bool = True,
    storage: Path | str = "runs",
    tracking_uri: str | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Score the teacher of a training, a trial or a registered model on validation, dev or test images, or a folder.

    Args:
        run: NAME of a training or a search (its best trial), NAME/TRIAL, an MLflow run's id or name, or
            `models:/NAME@ALIAS`.
        pictures: images of which masks and overlays are written; none: no pictures at all.
        record: whether metrics and files go to the model's MLflow run.

    Raises:
        UsageError: no such model, images or folder.
    """
    console = console or make_console(quiet)
    from harness.models.evaluate_model import evaluate_model

    return evaluate_model(run, Path(storage), tracking_uri, console, split, folder, out, pictures, record)
