"""`s4 evaluate` and `s4 predict`: scores and masks of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.options import Json, Storage, TrackingUri
from harness.console import open_console

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="NAME of a training or search (its best trial), NAME/TRIAL, an MLflow run's id or name, "
        "models:/NAME@ALIAS or models:/NAME/VERSION.",
    ),
]


def evaluate(
    run: Run,
    split: Annotated[
        Literal["val", "dev"], typer.Option(help="Validation images, or those held back for dev.")
    ] = "val",
    folder: Annotated[
        Path | None, typer.Option(help="A folder of images/ and masks/ instead, of the model's classes.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where files go; default: STORAGE/NAME/evaluation/SPLIT.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Images of which masks and overlays are written.")] = 8,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Write no pictures.")] = False,
    no_record: Annotated[bool, typer.Option("--no-record", help="Leave the run in MLflow as it is.")] = False,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Score the teacher of a training, a trial or a registered model.

    Writes tables, the confusion matrix of every image and pictures, and logs val/... to the model's MLflow run.
    Twice the same evaluation changes nothing.
    """
    from harness.models.evaluate_model import evaluate_model

    shown = None if no_pictures else pictures
    with open_console(as_json) as console:
        evaluate_model(run, storage, tracking_uri, console, split, folder, out, shown, not no_record)


def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder of the masks, NAME.png for each image.")],
    overlays: Annotated[
        bool, typer.Option("--overlay", help="Also write the images with the classes' colours: OUT/overlays/NAME.png.")
    ] = False,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Write a mask of class indices for each image, of the image's own size, with a palette.

    All images are decoded before anything is written.
    """
    from harness.models.evaluate_model import predict_masks

    with open_console(as_json) as console:
        predict_masks(run, images, out, storage, tracking_uri, console, overlays)
