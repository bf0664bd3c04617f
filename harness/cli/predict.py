"""`s4 predict`: masks of image files from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.evaluate import Run
from harness.cli.options import Json, Storage, TrackingUri
from harness.console import open_console


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
    from rich.progress import track

    from harness.cli.conduct import tracking_uri_of
    from harness.models.find import find_run
    from trainers.local_run import default_device
    from trainers.predict import check_images, check_out, find_images, write_predictions

    files = find_images(images)
    check_out(files, out)
    found = find_run(run, storage, tracking_uri_of(tracking_uri))
    check_images(files)
    with open_console(as_json) as console:
        segmenter = found.load(default_device())
        work = write_predictions(segmenter, files, out, overlays)
        progress = track(
            work, found.title, len(files), console=console.rich, transient=True, disable=not console.rich.is_terminal
        )
        written = [str(path) for path in progress]
        console.say(f"{found.title} at step {segmenter.step}: {len(written)} masks in {out}")
        names = ", ".join(f"{value} {name}" for value, name in enumerate(segmenter.classes))
        console.say(f"values: {names}")
        console.result({"run": found.title, "masks": written, "classes": list(segmenter.classes)})
