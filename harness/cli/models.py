"""`s4 evaluate` and `s4 predict`: scores and masks of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.help import RECORDS, WHAT
from harness.cli.options import Json, Storage, TrackingUri, runs_here
from harness.console import open_console

OUTPUT = "What is written"
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        autocompletion=runs_here,
        help="NAME of a training or search (its best trial), NAME/TRIAL, NAME/VARIANT/SEED of an ablation, an MLflow "
        "run's id or name, models:/NAME@ALIAS or models:/NAME/VERSION.",
    ),
]


def evaluate(
    run: Run,
    split: Annotated[
        Literal["val", "dev", "test"],
        typer.Option(
            metavar="SPLIT",
            help="val; dev, images held back from training; or test, of data.test.",
            rich_help_panel=WHAT,
        ),
    ] = "val",
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Of images/ and masks/ instead, of the model's classes.", rich_help_panel=WHAT
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Of files; default: STORAGE/NAME/evaluation/SPLIT.", rich_help_panel=OUTPUT
        ),
    ] = None,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Images of which masks and overlays are written.", rich_help_panel=OUTPUT
        ),
    ] = 8,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Write no pictures.", rich_help_panel=OUTPUT)
    ] = False,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Leave the run in MLflow as it is.", rich_help_panel=RECORDS)
    ] = False,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Score the teacher of a training, a trial or a registered model.

    Writes tables, the confusion matrix of every image and pictures, and logs val/... to the model's MLflow run.
    Twice the same evaluation changes nothing.

    Examples:
        s4 evaluate css_quick-001
        s4 evaluate css_components/mix/1 --split dev
        s4 evaluate models:/css@champion --folder photos --no-record
    """
    from harness.models.evaluate_model import evaluate_model

    shown = None if no_pictures else pictures
    with open_console(as_json) as console:
        evaluate_model(run, storage, tracking_uri, console, split, folder, out, shown, not no_record)


def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Of the masks, NAME.png for each image.", rich_help_panel=OUTPUT),
    ],
    overlays: Annotated[
        bool,
        typer.Option(
            "--overlay",
            rich_help_panel=OUTPUT,
            help="Also write the images with the classes' colours: OUT/overlays/NAME.png.",
        ),
    ] = False,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Write a mask of class indices for each image, of the image's own size, with a palette.

    All images are decoded before anything is written.

    Examples:
        s4 predict css_quick-001 photos --out masks
        s4 predict slower street.jpg square.jpg --out masks --overlay
    """
    from harness.models.evaluate_model import predict_masks

    with open_console(as_json) as console:
        predict_masks(run, images, out, storage, tracking_uri, console, overlays)


def export(
    run: Run,
    form: Annotated[
        Literal["torch", "torchscript", "onnx"],
        typer.Option(
            "--format", metavar="FORMAT", help="torch (torch.export), torchscript or onnx.", rich_help_panel=WHAT
        ),
    ] = "torch",
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Of the images; default: as the network sees them.", rich_help_panel=WHAT),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: STORAGE/NAME/evaluation/model.pt2.", rich_help_panel=OUTPUT),
    ] = None,
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Write a model as one file that torch or ONNX Runtime alone can run: images in [0, 1] to logits, of one size.

    A copy that is read back computes what the model does, or nothing is written.

    Examples:
        s4 export css_quick-001
        s4 export css_quick-001 --format onnx
        s4 export slower --format torchscript --size 512x512 --out slower.pt
    """
    from harness.models.export_model import export_model

    with open_console(as_json) as console:
        export_model(run, form, out, size, storage, tracking_uri, console)
