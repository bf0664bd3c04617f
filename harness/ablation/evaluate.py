"""Evaluation of an ablation's runs on dev and validation images, image by image, so that images can be resampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from harness.run_folder import LATEST, write_whole

if TYPE_CHECKING:
    from trainers.config import TrainConfig

SPLITS = ("dev", "val")
CONFIG = "config.yaml"
"""The whole config of a run."""
CONFUSION = "confusion.png"
"""Of the validation images."""
PICTURE = "overlays.png"
"""The same images for every run: truth, prediction, pseudo-labels of both spaces, confidence, similarity."""


class Job(NamedTuple):
    """A trained run to be looked at."""

    config: TrainConfig
    folder: Path
    """Of its trial; the checkpoint lies in it, and what is found is put there."""


def evaluation_file(folder: Path, split: str) -> Path:
    """Return where a run's confusion matrices of `dev` or `val` lie, below the folder of its trial."""
    return folder / f"{split}.npz"


def evaluate_run(job: Job) -> dict[str, float]:
    """Look at dev and validation images with the teacher of a run; return `val/miou` and `val/iou/CLASS`.

    What was found before is not looked for again.

    Raises:
        DataError: the checkpoint is not of the horizon, or it or the images cannot be read.
    """
    from harness.models.evaluation import draw_confusion, metrics_of
    from trainers.data.splits import open_splits, open_val
    from trainers.figure import draw_checkpoint
    from trainers.image_evaluation import evaluate_images, load_image_evaluation, save_image_evaluation
    from trainers.models.served import load_segmenter

    if not (job.folder / CONFIG).exists():
        write_whole(job.folder / CONFIG, yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False))
    missing = [split for split in SPLITS if not evaluation_file(job.folder, split).exists()]
    if missing:
        segmenter = load_segmenter(job.config, job.folder / LATEST)
        _require_whole(segmenter.step, job)
        for split in missing:
            source = open_val(job.config.data) if split == "val" else open_splits(job.config.data).dev
            save_image_evaluation(evaluation_file(job.folder, split), evaluate_images(segmenter, source))
    if not (job.folder / PICTURE).exists():
        draw_checkpoint(job.config, job.folder / LATEST, job.folder / PICTURE)
    found = load_image_evaluation(evaluation_file(job.folder, "val"))
    if not (job.folder / CONFUSION).exists():
        draw_confusion(found, job.folder / CONFUSION, "val")
    return metrics_of(found, "val")


def evaluate_all(jobs: Mapping[int, Job], use_gpu: bool) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the key of a job and what `evaluate_run` found, as they are done; on the cluster, a device each.

    A Ray session must be active.

    Raises:
        UsageError: as `evaluate_run`.
    """
    import ray

    work = ray.remote(evaluate_run).options(num_cpus=1, num_gpus=1 if use_gpu else 0)
    pending = {work.remote(job): key for key, job in jobs.items()}
    while pending:
        (done, *_), _ = ray.wait(list(pending), num_returns=1)
        try:
            yield pending.pop(done), ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # in the words of the task, without Ray's traceback


def _require_whole(step: int, job: Job) -> None:
    from trainers.errors import DataError

    if step != job.config.schedule.steps:  # the disk was full when training ended
        raise DataError(
            f"a checkpoint of {job.config.schedule.steps} steps must lie in {job.folder}, it has {step}: remove the "
            "ablation and start again"
        )
