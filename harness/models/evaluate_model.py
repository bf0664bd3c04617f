"""Evaluation and prediction of a trained model, from its name to the files and the record in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress, track

from harness.console import Console
from harness.formats import one_line
from harness.models.evaluation import (
    Evaluation,
    draw_confusion,
    draw_images,
    metrics_of,
    summary,
    to_json,
    to_table,
    write_evaluation,
)
from harness.models.find import TrainedRun, find_run
from harness.run_folder import check_writable
from harness.tracking.stores import absolute_uri, run_of
from harness.tracking.writer import record_evaluation
from trainers.data.source import ImageSource
from trainers.data.splits import open_scored
from trainers.errors import UsageError
from trainers.image_evaluation import evaluate_images, folder_source
from trainers.local_run import default_device
from trainers.predict import check_images, check_out, find_images, write_predictions

CONFUSION = "confusion.png"


def evaluate_model(
    run: str,
    storage: Path,
    tracking_uri: str | None,
    console: Console,
    split: str = "val",
    folder: Path | None = None,
    out: Path | None = None,
    pictures: int | None = 8,
    record: bool = True,
) -> Evaluation:
    """Score the teacher of a training, a trial or a registered model, and show and write the scores.

    Args:
        run: as `harness.models.find.find_run` takes it.
        split: `val`, `dev` or `test`.
        folder: a folder of images/ and masks/ instead of the split.
        out: folder of the files; none: that of the run's evaluations.
        pictures: images of which masks and overlays are written; none: no pictures at all.

    Raises:
        UsageError: no such model or folder.
        DataError: the images are not there.
    """
    uri = absolute_uri(tracking_uri)
    model = find_run(run, storage, uri)
    label = split if folder is None else f"folder-{folder.resolve().name}"
    if folder is not None:
        source: ImageSource = folder_source(model.config, folder)
    else:
        source = open_scored(model.config.data, split)
    out = out or model.out / label
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must be a folder, got the file {out}: choose another")
    check_writable(out.absolute(), "--out")
    segmenter = model.load(default_device())
    with Progress(console=console.rich, transient=True, disable=not console.rich.is_terminal) as progress:
        task = progress.add_task(f"{model.title} on {label}", total=len(source))
        scores = evaluate_images(segmenter, source, lambda count: progress.advance(task, count))
    evaluation = Evaluation(model.title, label, segmenter.step, model.config.hash, scores)
    write_evaluation(out, evaluation)
    if pictures is not None:
        draw_confusion(scores, out / CONFUSION, f"{model.title} on {label}")
        draw_images(segmenter, source, out, pictures)
    console.table(to_table(evaluation))
    console.say(summary(evaluation))
    console.say(f"files in {out}")
    run_id = _record(model, evaluation, out, uri, console) if record else None
    console.result({**to_json(evaluation), "folder": str(out), "run_id": run_id})
    return evaluation


def _record(model: TrainedRun, evaluation: Evaluation, files: Path, uri: str, console: Console) -> str | None:
    """Return the id of the model's run, where it has one, with the evaluation logged; what it reported of dev stays."""
    split = evaluation.split
    try:
        run_id = model.run_id or (run_of(uri, *model.origin) if model.origin else None)
        if run_id is None:
            console.say(f"not recorded: {uri} has no run of {model.title}")
            return None
        metrics = {} if split == "dev" else metrics_of(evaluation.images, split)
        new = record_evaluation(uri, run_id, metrics, evaluation.step, files, f"evaluation/{split}")
    except Exception as error:  # whatever a store that is down makes MLflow raise
        console.say(f"not recorded: {one_line(error, 200)}; the same command tries again")
        return None
    console.say(f"recorded with run {run_id}, {new} metrics new")
    return run_id


def predict_masks(
    run: str,
    images: Sequence[Path],
    out: Path,
    storage: Path,
    tracking_uri: str | None,
    console: Console,
    overlays: bool = False,
) -> list[Path]:
    """Write a mask of class indices for each image, of the image's own size; all are decoded before one is written.

    Args:
        run: as `harness.models.find.find_run` takes it.
        images: image files, or folders of them.
        overlays: whether the images with the classes' colours are written, too.

    Raises:
        UsageError: no such model or images, or a mask would replace an image.
    """
    files = find_images(images)
    check_out(files, out)
    check_writable(out.absolute(), "--out")
    model = find_run(run, storage, absolute_uri(tracking_uri))
    check_images(files)
    segmenter = model.load(default_device())
    work, quiet = write_predictions(segmenter, files, out, overlays), not console.rich.is_terminal
    masks = list(track(work, model.title, len(files), console=console.rich, transient=True, disable=quiet))
    console.say(f"{model.title} at step {segmenter.step}: {len(masks)} masks in {out}")
    console.say(f"values: {', '.join(f'{value} {name}' for value, name in enumerate(segmenter.classes))}")
    console.result({"run": model.title, "masks": [*map(str, masks)], "classes": list(segmenter.classes)})
    return masks
