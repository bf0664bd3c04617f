"""Quality of pseudo-labels: the teacher's labels of unlabelled images, against their truth where it is known.

The paper's Table 5 and the comparison of both spaces, measured while training. No truth measured here reaches a loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainers.compute import forward
from trainers.config import IGNORE, TrainConfig
from trainers.css.adversary import judged_targets
from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import collaborate, logit_targets, pseudo_labels, upsample
from trainers.css.supervision import confident_labels
from trainers.css.unreliable import as_unsure, pixel_entropy
from trainers.data.source import ImageSource
from trainers.data.weak import open_weak
from trainers.distributed import sum_counts
from trainers.health import normalised_entropy
from trainers.loader import numbered_groups
from trainers.models.discriminator import Discriminator
from trainers.models.heads import Dense
from trainers.run import Run
from trainers.schedules import delta_u
from trainers.scores import count_classes, count_pairs, iou_scores
from trainers.targets import ignore_contradicted
from trainers.transfer import send

KINDS = ("logit", "confident", "veto", "representation", "mix")
"""Labels of the logits, those of them that are confident, labels for the logits that weak labels contradict, labels of
the representations, labels that both agree on."""


class _ImageLabels(NamedTuple):
    """A teacher's labels of an image."""

    labels: Tensor
    """[kinds, H, W], 255 where a kind does not keep a pixel."""
    kept: Tensor
    """[H, W] bool: pixels of the image that enter L_u."""


class Counts(NamedTuple):
    """Pixels of the images; sums over ranks and images are all that is needed of them. All int64."""

    confusion: Tensor
    """[kinds, K, K], rows truth, columns label, over the pixels of known truth that a kind keeps."""
    predicted: Tensor
    """[K], of all pixels, by the label of the logits."""
    kept: Tensor
    """[K], of those that enter L_u, by the label of the logits."""
    agreed: Tensor
    """[1], where the labels of both spaces agree."""

    @classmethod
    def zero(cls, num_classes: int, device: torch.device) -> Counts:
        """Return counts of no pixels."""
        sizes = ((len(KINDS), num_classes, num_classes), (num_classes,), (num_classes,), (1,))
        return cls(*(torch.zeros(size, dtype=torch.int64, device=device) for size in sizes))

    def over_ranks(self, world_size: int) -> Counts:
        """Return the sums over the ranks, in one message, on the CPU."""
        total = sum_counts(torch.cat([count.flatten() for count in self]), world_size).cpu()
        parts = torch.split(total, [count.numel() for count in self])
        return Counts(*(part.view_as(count) for part, count in zip(parts, self, strict=True)))


def evenly_spaced(count: int, total: int) -> list[int]:
    """Return `count` of the indices 0 to total - 1 in even distances; all of them where there are no more."""
    count = min(count, total)
    return [position * total // count for position in range(count)]


@torch.no_grad()
def count_pseudo_labels(
    teacher: torch.nn.Module,
    prototypes: Prototypes,
    source: ImageSource,
    config: TrainConfig,
    run: Run,
    warming_up: bool,
    passed: float = 0.0,
    discriminator: Discriminator | None = None,
) -> Counts:
    """Count the teacher's labels of `evaluation.quality_images` images of a source, over all ranks.

    The images are the same at every evaluation and for every number of ranks, and the teacher sees them as they are
    stored: one forward an image. Maps of the stored size exist for one image at a time.

    Args:
        teacher: in evaluation mode.
        prototypes: [K, D].
        source: unlabelled images; those without truth are in no confusion matrix.
        config: what L_u keeps, and how labels are made.
        run: this rank and its group.
        warming_up: whether `cross` still takes all labels from the logits.
        passed: share of the horizon. A percentile of the entropy is taken in each image alone.
        discriminator: whose map may say which pixels enter L_u.
    """
    counts = Counts.zero(config.num_classes, run.device)
    chosen = evenly_spaced(config.evaluation.quality_images, len(source))
    weak_maps = open_weak(config.data) if config.css.veto else None
    groups = send(torch.tensor(config.class_groups), run.device)
    for indices, (images, truth) in numbered_groups(source, chosen, config.evaluation.batch, run):
        outputs = forward(teacher, images, config)
        size, weak = (truth.shape[1], truth.shape[2]), None
        if weak_maps is not None:
            weak = send(weak_maps.fetch(indices).labels[:, : size[0], : size[1]], run.device).long()
        for index, mask in enumerate(truth):
            output = outputs.of(slice(index, index + 1))
            known = None if weak is None else weak[index : index + 1]
            labels = _label_image(output, prototypes, config, warming_up, passed, size, known, groups, discriminator)
            _add(counts, labels, mask)
    return counts.over_ranks(run.world_size)


def quality_metrics(counts: Counts, config: TrainConfig, with_prototypes: bool) -> dict[str, float]:
    """Return the metrics of the labels; only those that there are pixels for.

    - `quality/KIND/miou`, `quality/KIND/accuracy`: over the pixels that a kind keeps, where the truth is known;
    - `quality/mix/share`, `quality/confident/share`: share of the pixels of known truth that it keeps;
    - `quality/veto/share`, `quality/veto/accuracy`: share of the pixels of known truth that `css.veto` takes from L_u,
      and of those whose pseudo-label was right;
    - `quality/agreement`: share of all pixels on which both spaces agree;
    - `predicted/CLASS`: share of all pixels that the logits give a class, for the classes that they or the truth name;
    - `kept/CLASS`: share of the pixels which the logits give a class that enter L_u, where there are any and an L_u;
    - `health/predicted_entropy`: of the predicted shares, in [0, 1]; near 0 where one class is left.

    All are in [0, 1]. There are at most 2 K of the metrics by class, and fewer where classes do not occur.

    Args:
        counts: over all ranks, on the CPU.
        config: names the classes.
        with_prototypes: whether any class has a prototype; else representations, mix and agreement have no metrics.
    """
    pixels = int(counts.predicted.sum())
    if pixels == 0:
        return {}
    metrics = {"health/predicted_entropy": normalised_entropy(counts.predicted)}
    known_pixels = int(counts.confusion[0].sum())  # the logits label every pixel
    for index, kind in enumerate(KINDS[: len(KINDS) if with_prototypes else 3]):
        if kind != "veto" or config.css.veto:
            metrics |= _scores(kind, counts.confusion[index], known_pixels)
    if with_prototypes:
        metrics["quality/agreement"] = int(counts.agreed) / pixels
    occurring = (counts.predicted > 0) | (counts.confusion[0].sum(dim=1) > 0)
    for index in occurring.nonzero().flatten().tolist():
        name, predicted = config.data.classes[index], int(counts.predicted[index])
        metrics[f"predicted/{name}"] = predicted / pixels
        if predicted and config.loss.lambda_u > 0:
            metrics[f"kept/{name}"] = int(counts.kept[index]) / predicted
    return metrics


def _scores(kind: str, confusion: Tensor, known_pixels: int) -> dict[str, float]:
    if known_pixels == 0:
        return {}
    kept = int(confusion.sum())
    metrics = {f"quality/{kind}/share": kept / known_pixels} if kind in ("mix", "confident", "veto") else {}
    if kept and kind != "veto":
        metrics[f"quality/{kind}/miou"] = iou_scores(confusion).miou
    if kept:
        metrics[f"quality/{kind}/accuracy"] = int(confusion.diagonal().sum()) / kept
    return metrics


def _label_image(
    teacher: Dense,
    prototypes: Prototypes,
    config: TrainConfig,
    warming_up: bool,
    passed: float,
    size: tuple[int, int],
    weak: Tensor | None,
    class_groups: Tensor,
    discriminator: Discriminator | None,
) -> _ImageLabels:
    """Label one image as a training step would; with groups of classes [1, H, W], they veto."""
    threshold = delta_u(config, passed)
    if not config.uses_prototypes:
        targets = logit_targets(teacher, size)
        others = torch.full_like(targets.logit_target, IGNORE)
        spaces, confidence = (targets.logit_target, others, others), targets.confidence
    else:
        labels = pseudo_labels(teacher, prototypes, config.css.indicator_temperature, size)
        targets = collaborate(labels, config, warming_up)
        spaces = (labels.logit_label, labels.representation_label, labels.agreed)
        confidence = labels.confidence
    targets = judged_targets(targets, teacher.logits, config, discriminator)
    proposed, targets = targets.logit_target, ignore_contradicted(targets, weak, class_groups)
    vetoed = torch.where(targets.logit_target == IGNORE, proposed, IGNORE)
    if config.thresholds.kind == "entropy_percentile":
        confidence = as_unsure(pixel_entropy(upsample(teacher.logits, size)), targets.logit_target != IGNORE)
        targets = targets._replace(confidence=confidence)
    confident = confident_labels(spaces[0], confidence, threshold)
    kept = confident_labels(targets.logit_target, targets.confidence, threshold) != IGNORE
    return _ImageLabels(torch.cat([spaces[0], confident, vetoed, *spaces[1:]]), kept.squeeze(0))


def _add(counts: Counts, image: _ImageLabels, truth: Tensor) -> None:
    """Count an image in; without waiting for the device."""
    num_classes = counts.predicted.shape[0]
    for confusion, label in zip(counts.confusion, image.labels, strict=True):
        confusion += count_pairs(truth, label, num_classes)
    logit, mix = image.labels[0], image.labels[-1]
    counts.predicted.add_(count_classes(logit, num_classes))
    counts.kept.add_(count_classes(torch.where(image.kept, logit, IGNORE), num_classes))
    counts.agreed.add_((mix != IGNORE).sum())
