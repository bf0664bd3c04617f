"""`s4 evaluate`: scores a trained model on the validation images, the dev images or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Json, Storage, TrackingUri
from harness.console import Console, open_console
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.models.evaluation import Evaluation
    from harness.models.find import TrainedRun
    from trainers.config import TrainConfig
    from trainers.data.source import ImageSource
    from trainers.image_evaluation import ImageEvaluation
    from trainers.models.served import Segmenter

CONFUSION = "confusion.png"
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
    from harness.cli.conduct import tracking_uri_of
    from harness.models.evaluation import summary, to_json, to_table, write_evaluation
    from harness.models.find import find_run

    uri = tracking_uri_of(tracking_uri)
    found = find_run(run, storage, uri)
    label = split if folder is None else f"folder-{folder.resolve().name}"
    source = open_source(found.config, split, folder)
    place = out or found.out / label
    if place.exists() and not place.is_dir():
        raise UsageError(f"--out must be a folder, got the file {place}: choose another")
    with open_console(as_json) as console:
        from trainers.local_run import default_device

        segmenter = found.load(default_device())
        evaluation = _evaluate(found, segmenter, source, label, console)
        write_evaluation(place, evaluation)
        if not no_pictures:
            _draw(segmenter, source, evaluation, place, pictures)
        console.rich.print(to_table(evaluation))
        console.say(summary(evaluation))
        console.say(f"files in {place}")
        run_id = None if no_record else _record(found, evaluation, place, uri, console)
        console.result({**to_json(evaluation), "folder": str(place), "run_id": run_id})


def open_source(config: TrainConfig, split: str, folder: Path | None) -> ImageSource:
    """Return the images to score.

    Raises:
        DataError: they are not there.
    """
    from trainers.data.splits import open_splits, open_val
    from trainers.image_evaluation import folder_source

    if folder is not None:
        return folder_source(config, folder)
    return open_val(config.data) if split == "val" else open_splits(config.data).dev


def _evaluate(found: TrainedRun, segmenter: Segmenter, source: ImageSource, label: str, console: Console) -> Evaluation:
    from rich.progress import Progress

    from harness.models.evaluation import Evaluation
    from trainers.image_evaluation import evaluate_images

    with Progress(console=console.rich, transient=True, disable=not console.rich.is_terminal) as progress:
        task = progress.add_task(f"{found.title} on {label}", total=len(source))
        seen: ImageEvaluation = evaluate_images(segmenter, source, lambda count: progress.advance(task, count))
    return Evaluation(found.title, label, segmenter.step, found.config.hash, seen)


def _draw(segmenter: Segmenter, source: ImageSource, evaluation: Evaluation, place: Path, count: int) -> None:
    from harness.models.evaluation import draw_confusion, draw_images

    draw_confusion(evaluation.scores, place / CONFUSION, f"{evaluation.run} on {evaluation.split}")
    draw_images(segmenter, source, place, count)


def _record(found: TrainedRun, evaluation: Evaluation, place: Path, uri: str, console: Console) -> str | None:
    """Log the evaluation to the model's run, where it has one, and return the run's id.

    A store that does not answer costs the record, not the evaluation. What a training reported of dev stays as it is.
    """
    from harness.models.evaluation import metrics_of
    from harness.tracking.stores import run_of
    from harness.tracking.writer import record_evaluation

    try:
        run_id = found.run_id or (run_of(uri, *found.origin) if found.origin else None)
        if run_id is None:
            console.say(f"not recorded: {uri} has no run of {found.title}")
            return None
        metrics = {} if evaluation.split == "dev" else metrics_of(evaluation.scores, evaluation.split)
        new = record_evaluation(uri, run_id, metrics, evaluation.step, place, f"evaluation/{evaluation.split}")
    except Exception as error:  # whatever a store that is down makes MLflow raise
        console.say(f"not recorded: {' '.join(str(error).split())[:200]}; the same command tries again")
        return None
    console.say(f"recorded with run {run_id}, {new} metrics new")
    return run_id
