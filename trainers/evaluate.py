"""Evaluation: one confusion matrix over all ranks, every image counted once, and the metrics of a report."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainers.compute import any_shapes, forward
from trainers.config import TrainConfig
from trainers.css.pseudo_labels import upsample
from trainers.data.source import ImageSource
from trainers.data.splits import Splits
from trainers.distributed import sum_counts
from trainers.errors import require_finite
from trainers.health import prototype_health, teacher_student_gap
from trainers.loader import rank_groups
from trainers.quality import count_pseudo_labels, quality_metrics
from trainers.run import Run
from trainers.schedules import cross_warmup_steps
from trainers.scores import count_pairs, iou_scores
from trainers.snapshots import add_snapshot, take_snapshot
from trainers.state import TrainState
from trainers.windows import sliding_labels


@torch.no_grad()
def confusion_matrix(model: nn.Module, source: ImageSource, config: TrainConfig, run: Run) -> Tensor:
    """Return the confusion matrix [K, K] int64 of a model over a data set, at the stored size, over all ranks.

    Maps of the stored size exist for one image at a time (or for `evaluation.batch` windows).
    """
    classes = config.num_classes
    total = torch.zeros(classes, classes, dtype=torch.int64, device=run.device)
    training = model.training
    model.eval()
    for images, truth in rank_groups(source, range(len(source)), config.evaluation.batch, run):
        for label, mask in zip(predictions(model, images, config), truth, strict=True):
            total += count_pairs(mask, label, classes)
    model.train(training)
    return sum_counts(total, run.world_size)


def predictions(model: nn.Module, images: Tensor, config: TrainConfig) -> Iterator[Tensor]:
    """Yield the class of every pixel, [H, W] int64, of one image [3, H, W] after another."""
    if config.evaluation.mode == "whole":
        size = images.shape[-2], images.shape[-1]
        for logits in forward(model, images, config).logits:
            yield upsample(logits.unsqueeze(0), size).argmax(dim=1).squeeze(0)
        return

    def probs(windows: Tensor) -> Tensor:
        return upsample(forward(model, windows, config).logits, (windows.shape[-2], windows.shape[-1])).softmax(dim=1)

    settings = config.evaluation
    for image in images:
        yield sliding_labels(probs, image, settings.window, settings.overlap, settings.batch)


def evaluate(model: nn.Module, source: ImageSource, config: TrainConfig, run: Run, prefix: str) -> dict[str, float]:
    """Return `PREFIX/miou` and `PREFIX/iou/CLASS` for the classes that occur; the same on every rank."""
    scores = iou_scores(confusion_matrix(model, source, config, run).cpu())
    per_class = {
        f"{prefix}/iou/{name}": value
        for name, value in zip(config.data.classes, scores.iou.tolist(), strict=True)
        if value == value
    }
    return {f"{prefix}/miou": scores.miou, **per_class}


@any_shapes()
def evaluate_state(state: TrainState, splits: Splits, config: TrainConfig, run: Run) -> dict[str, float]:
    """Return a report's metrics of a state: `dev/...` of the network that is scored, `quality/...` and `health/...`.

    Costs a forward of every dev image and of `evaluation.quality_images` unlabelled ones, shared by the ranks, and two
    collectives of counts; and, on every rank, a forward of the few images of `trainers.snapshots`, which the state
    keeps. The metrics are the same on every rank; which there are depends on what occurs (see `trainers.quality`,
    `trainers.health`).

    Raises:
        DivergedError: a parameter of the student or the teacher, or a prototype, is not finite.
    """
    metrics = evaluate(state.scored, splits.dev, config, run, "dev")
    if config.evaluation.both:
        other = state.student if state.scored is state.teacher else state.teacher
        metrics |= evaluate(other, splits.dev, config, run, "other")
    metrics["health/teacher_student_gap"] = teacher_student_gap(state.teacher, state.student)
    if config.uses_prototypes:
        metrics |= prototype_health(state.prototypes, state.prototypes_at_report)
        if config.evaluation.representation_pixels:
            snapshot = take_snapshot(state.teacher, state.prototypes, splits.dev, config, state.step)
            state.snapshots = add_snapshot(state.snapshots, snapshot)
    if config.uses_unlabelled and config.evaluation.quality_images and len(splits.unlabelled):
        warmup = cross_warmup_steps(config.css, config.schedule, len(splits.labelled), len(splits.unlabelled))
        warming_up = state.step < warmup
        training = state.teacher.training
        passed = state.step / config.schedule.steps
        teacher = state.teacher.eval()
        judge = None if state.adversary is None else state.adversary.network
        counts = count_pseudo_labels(
            teacher, state.prototypes, splits.unlabelled, config, run, warming_up, passed, judge
        )
        state.teacher.train(training)
        with_prototypes = config.uses_prototypes and bool(state.prototypes.seen.any())
        metrics |= quality_metrics(counts, config, with_prototypes)
    require_finite(metrics, state.step)
    return metrics
