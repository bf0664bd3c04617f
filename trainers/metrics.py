"""Names of the metrics that a report can hold, from the config alone: what a search or an ablation may ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainers.config import TrainConfig
from trainers.config.streams import loss_name

ALWAYS = (
    "dev/miou", "train/loss/total", "train/loss/supervised", "train/share/labelled", "health/teacher_student_gap",
    "time/step_s", "time/first_step_unix", "step", "finished",
)  # fmt: skip


def metric_names(configs: Iterable[TrainConfig]) -> list[str]:
    """Return the names of all metrics that a report of one of these configs, or of one between them, can hold.

    Which of them a report holds depends on what occurs: on classes, pixels of known truth, prototypes
    (`trainers.evaluate`, `trainers.quality`, `trainers.health`).
    """
    configs = list(configs)
    unlabelled = any(config.uses_unlabelled for config in configs)
    contrast = any(config.loss.lambda_c > 0 for config in configs)
    prototypes = unlabelled and (contrast or any(config.css.label_strategy != "logit" for config in configs))
    classes = list(dict.fromkeys(name for config in configs for name in config.data.classes))
    names = [*ALWAYS, *_by_class("dev/iou", classes)]
    if any(config.evaluation.both for config in configs):
        names += ["other/miou", *_by_class("other/iou", classes)]
    for stream in dict.fromkeys(name for config in configs for name in config.active_streams):
        names += [f"train/{kind}/{loss_name(stream)}" for kind in ("loss", "share")]
    names += _of_auxiliary_head([config for config in configs if config.model.auxiliary != "none"])
    if any(config.bank.weight > 0 for config in configs):
        names += ["train/loss/bank"]
    if any(config.uses_discriminator for config in configs):
        names += ["train/loss/discriminator", "health/discriminator_loss"]
    for kind, of in (("adversarial", "weight_labelled"), ("adversarial_unlabelled", "weight_unlabelled")):
        names += [f"train/loss/{kind}"] if any(getattr(config.adversary, of) > 0 for config in configs) else []
    if any(config.loss.lambda_w > 0 for config in configs):
        names += ["train/loss/weak", "train/share/weak"]
    if contrast:
        names += ["train/loss/contrast"]
    if prototypes:
        names += [f"train/share/{pixels}" for pixels in ("valid", "hard")]
        names += [f"health/{name}" for name in ("classes_without_prototype", "prototype_drift", "prototype_angle_min")]
    if unlabelled and any(config.evaluation.quality_images for config in configs):
        kinds = ("logit", "confident", *(("representation", "mix") if prototypes else ()))
        names += ["health/predicted_entropy", "quality/confident/share", *_by_class("predicted", classes)]
        names += [f"quality/{kind}/{score}" for kind in kinds for score in ("miou", "accuracy")]
        names += ["quality/mix/share", "quality/agreement"] if prototypes else []
        names += ["quality/veto/share", "quality/veto/accuracy"] if any(config.css.veto for config in configs) else []
        names += _by_class("kept", classes) if any(config.loss.lambda_u > 0 for config in configs) else []
    return names


def late_metric_names(configs: Iterable[TrainConfig]) -> list[str]:
    """Return the names of all metrics of the validation and test images, which are read once, at the end."""
    configs = list(configs)
    classes = list(dict.fromkeys(name for config in configs for name in config.data.classes))
    splits = dict.fromkeys(split for config in configs for split in config.data.late_splits)
    return [
        name for split in splits for name in (f"{split}/miou", f"{split}/accuracy", *_by_class(f"{split}/iou", classes))
    ]


def _of_auxiliary_head(configs: Sequence[TrainConfig]) -> list[str]:
    of_views = [config for config in configs if config.loss.auxiliary_targets == "all"]
    streams = dict.fromkeys(name for config in of_views for name in config.active_streams)
    names = ["train/loss/auxiliary"] if configs else []
    return names + [f"train/loss/auxiliary_{loss_name(stream)}" for stream in streams]


def _by_class(prefix: str, classes: Sequence[str]) -> list[str]:
    return [f"{prefix}/{name}" for name in classes]
