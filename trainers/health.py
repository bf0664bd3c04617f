"""Health of a run, from its state alone: drift and angles of prototypes, missing ones, gap of teacher and student."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.css.prototypes import Prototypes

HEALTHY = 0.1, 0.69
"""Least and largest loss of a discriminator that helps; log 2 = 0.693 is that of one which tells nothing apart."""


def prototype_health(now: Prototypes, before: Prototypes) -> dict[str, float]:
    """Return `health/prototype_drift`, `health/prototype_angle_min` and `health/classes_without_prototype`.

    Drift is the mean of 1 - cos between a class's prototype now and before, in [0, 2], over the classes seen by both.
    The angle is the smallest between prototypes of two classes seen, in degrees in [0, 180]. Each is left out where
    there is nothing to take it of.

    Args:
        now: the prototypes.
        before: those of the report before.
    """
    metrics = {"health/classes_without_prototype": float((~now.seen).sum())}
    directions = _directions(now)
    both = now.seen & before.seen
    if both.any():
        cosines = (directions * _directions(before)).sum(dim=1)[both]
        metrics["health/prototype_drift"] = float((1 - cosines).mean().clamp(min=0))
    if now.seen.sum() > 1:
        cosines = (directions @ directions.T)[now.seen][:, now.seen].fill_diagonal_(-1)
        metrics["health/prototype_angle_min"] = math.degrees(float(cosines.max().clamp(-1, 1).acos()))
    return metrics


@torch.no_grad()
def teacher_student_gap(teacher: nn.Module, student: nn.Module) -> float:
    """Return ||t - s|| / ||s|| over the teacher's parameters: 0 where teacher and student are the same."""
    own = dict(student.named_parameters())
    of_teacher: list[Tensor] = list(teacher.parameters())
    of_student: list[Tensor] = [own[name] for name, _ in teacher.named_parameters()]
    return float(_norm(torch._foreach_sub(of_teacher, of_student)) / _norm(of_student))


def discriminator_health(metrics: Mapping[str, float], passed: float) -> dict[str, float]:
    """Return `health/discriminator_loss`, the mean since the last report, where there is a discriminator.

    A warning says where it has won or lost, once a quarter of the horizon has passed; before, it learns.

    Args:
        metrics: of a report, with `train/loss/discriminator` where there is one.
        passed: share of the horizon.
    """
    loss = metrics.get("train/loss/discriminator")
    if loss is None:
        return {}
    if passed >= 0.25 and loss < HEALTHY[0]:
        _warn(f"below {HEALTHY[0]}: it tells every map from labels; lower adversary.discriminator_lr")
    elif passed >= 0.25 and loss > HEALTHY[1]:
        _warn(f"above {HEALTHY[1]}: it tells nothing apart; raise adversary.discriminator_lr")
    return {"health/discriminator_loss": loss}


def _warn(found: str) -> None:
    warnings.warn(f"the discriminator's loss is {found}", stacklevel=4)


def normalised_entropy(counts: Tensor) -> float:
    """Return the entropy of a distribution over K classes, from counts [K] not all zero, over its maximum log K.

    1 where all classes are predicted alike, 0 where there is one alone.
    """
    shares = counts.double() / counts.sum()
    return float(torch.special.entr(shares).sum() / math.log(len(counts)))


def _directions(prototypes: Prototypes) -> Tensor:
    return F.normalize(prototypes.values.double(), dim=1)


def _norm(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm
