"""Schedules: pure functions of the step, defined on the whole horizon."""

from __future__ import annotations

import math

from torch import Tensor

from trainers.config import CssConfig, EmaConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from trainers.config.streams import loss_name


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Poly schedule with a floor (`OptimizerConfig.min_lr_rule`), for 0 <= step < steps."""
    decay = (1.0 - step / steps) ** config.power
    if config.min_lr_rule == "max":
        return float(max(config.lr * decay, config.min_lr))
    return float(config.min_lr + (config.lr - config.min_lr) * decay)


def cross_warmup_steps(config: CssConfig, schedule: ScheduleConfig, labelled: int, unlabelled: int) -> float:
    """Return for how many steps `cross` labels with logits alone; `labelled`, `unlabelled`: images of the splits."""
    in_steps = {
        "share": schedule.steps,
        "steps": 1,
        "epochs": unlabelled / schedule.unlabelled_batch,
        "labelled_epochs": labelled / schedule.labelled_batch,
    }
    return config.cross_warmup * in_steps[config.cross_warmup_unit]


def loss_weights(config: TrainConfig, step: int) -> dict[str, float]:
    """Weights of the named losses (Eq. 6) at a step; the published ramp of lambda_c is exp(-5 (step / steps)^2)."""
    loss, streams = config.loss, config.active_streams
    acts = float(step >= loss.labelled_first * config.schedule.steps)
    ramp = math.exp(-5.0 * (step / config.schedule.steps) ** 2) if loss.lambda_c_ramp == "exp" else 1.0
    of_streams = {loss_name(name): acts * loss.lambda_u * stream.weight for name, stream in streams.items()}
    auxiliary = {f"auxiliary_{name}": loss.auxiliary * weight for name, weight in of_streams.items()}
    return {
        "supervised": loss.lambda_s, **of_streams, "auxiliary": loss.auxiliary * loss.lambda_s, **auxiliary,
        "contrast": acts * loss.lambda_c * ramp, "bank": config.bank.weight, "weak": loss.lambda_w,
        "adversarial": config.adversary.weight_labelled, "adversarial_unlabelled": config.adversary.weight_unlabelled,
        "discriminator": 1.0,  # whose gradient reaches the discriminator alone
    }  # fmt: skip


def delta_u(config: TrainConfig, passed: float | Tensor) -> float | Tensor:
    """Confidence from which a pixel enters L_u, when this share of the horizon has passed.

    With percentiles the confidence of a pixel is the share of pixels that are as unsure (`trainers.css.unreliable`).
    """
    thresholds = config.thresholds
    return thresholds.delta_u if thresholds.kind == "fixed" else (1.0 - thresholds.percentile) * (1.0 - passed)


def delta_w(config: TrainConfig, passed: float | Tensor) -> float | Tensor:
    """Probability or, of reliable pixels, share above which an indicator makes a pixel valid for L_c."""
    return 1.0 - unreliable_share(config, passed) if config.uses_unreliable else config.delta_w_probability


def unreliable_share(config: TrainConfig, passed: float | Tensor) -> float | Tensor:
    """Share of the unlabelled pixels that are unreliable, and as many reliable: falls to 0 at the horizon."""
    return config.unreliable.share * (1.0 - passed)


def teacher_momentum(config: EmaConfig, step: int) -> float:
    """Warm start: min(1 - 1 / (step + 1), m), so that the teacher of step 0 is the student."""
    return min(1.0 - 1.0 / (step + 1), config.teacher_momentum)
