"""Schedules: pure functions of the step, defined on the whole horizon."""

from __future__ import annotations

import math

from trainers.config import EmaConfig, LossConfig, OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Poly schedule: lr * (1 - step / steps)^power, for 0 <= step < steps."""
    return float(config.lr * (1.0 - step / steps) ** config.power)


def loss_weights(config: LossConfig, step: int, steps: int) -> dict[str, float]:
    """Weights of the named losses (Eq. 6) at a step; the published ramp of lambda_c is exp(-5 (step / steps)^2)."""
    ramp = math.exp(-5.0 * (step / steps) ** 2) if config.lambda_c_ramp == "exp" else 1.0
    return {"supervised": 1.0, "unsupervised": config.lambda_u, "contrast": config.lambda_c * ramp}


def teacher_momentum(config: EmaConfig, step: int) -> float:
    """Warm start: min(1 - 1 / (step + 1), m), so that the teacher of step 0 is the student."""
    return min(1.0 - 1.0 / (step + 1), config.teacher_momentum)
