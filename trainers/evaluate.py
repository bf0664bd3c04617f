"""Evaluation: one confusion matrix over all ranks, every image counted once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_confusion_matrix

from trainers.config import IGNORE, TrainConfig
from trainers.css.pseudo_labels import upsample
from trainers.data.source import ImageSource
from trainers.distributed import sum_counts
from trainers.loader import to_images
from trainers.run import Run
from trainers.step import forward


class Scores(NamedTuple):
    """Intersection over union of each class, and its mean."""

    miou: float
    """Mean over the classes that occur in truth or prediction, in [0, 1]; 0 where none does."""
    iou: Tensor
    """[K] float64; NaN for classes that occur in neither."""


def iou_scores(confusion: Tensor) -> Scores:
    """Return IoU = TP / (TP + FP + FN) from a confusion matrix [K, K] (rows truth, columns prediction).

    A class that is absent from truth and prediction says nothing and is left out of the mean, which therefore is never
    NaN.
    """
    confusion = confusion.double()
    hit = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hit
    iou = hit / union
    occurring = union > 0
    return Scores(float(iou[occurring].mean()) if occurring.any() else 0.0, iou)


@torch.no_grad()
def confusion_matrix(model: nn.Module, source: ImageSource, config: TrainConfig, run: Run) -> Tensor:
    """Return the confusion matrix [K, K] int64 of a model over a data set, at the stored size, over all ranks."""
    total = torch.zeros(config.num_classes, config.num_classes, dtype=torch.int64, device=run.device)
    mine = range(run.rank, len(source), run.world_size)
    training = model.training
    model.eval()
    for start in range(0, len(mine), config.schedule.evaluation_batch):
        images, masks = source.fetch(mine[start : start + config.schedule.evaluation_batch])
        images = to_images(images, run.device)
        logits = upsample(forward(model, images, config).logits, (images.shape[-2], images.shape[-1]))
        total += multiclass_confusion_matrix(
            logits.argmax(dim=1),
            masks.to(run.device, torch.int64),
            config.num_classes,
            ignore_index=IGNORE,
            validate_args=False,
        )
    model.train(training)
    return sum_counts(total, run.world_size)


def evaluate(model: nn.Module, source: ImageSource, config: TrainConfig, run: Run, prefix: str) -> dict[str, float]:
    """Return `PREFIX/miou` and `PREFIX/iou/CLASS` for the classes that occur; the same on every rank."""
    scores = iou_scores(confusion_matrix(model, source, config, run).cpu())
    per_class = {
        f"{prefix}/iou/{name}": value
        for name, value in zip(config.data.classes, scores.iou.tolist(), strict=True)
        if value == value
    }
    return {f"{prefix}/miou": scores.miou, **per_class}
