"""Bytes that a rank of two hands to the others in a step, besides the gradients."""

from __future__ import annotations

from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from trainers import step, targets
from trainers.config import TrainConfig
from trainers.css.prototypes import ClassSums
from trainers.data.splits import Splits
from trainers.loader import load_batch
from trainers.state import TrainState
from trainers.targets import StepContext


class Traffic(NamedTuple):
    """Bytes a rank and step."""

    prototypes: int
    """Sums and counts of the classes."""
    messages: list[int]
    """Everything that `all_reduce` is given, divisors and counts of hard pixels included."""


def count_traffic(training: TrainState, splits: Splits, config: TrainConfig) -> Traffic:
    """Run the step's forward as the first of two ranks, with an `all_reduce` that only counts."""
    messages: list[int] = []
    sums: list[Tensor] = []
    prototypes = 0

    def all_reduce(tensor: Tensor) -> None:
        messages.append(tensor.numel() * tensor.element_size())

    def class_sums(*args: Any, **kwargs: Any) -> ClassSums:
        made = original_sums(*args, **kwargs)
        sums.extend(made)
        return made

    def sum_over_ranks(tensors: list[Tensor], world_size: int) -> list[Tensor]:
        nonlocal prototypes
        prototypes += sum(4 * tensor.numel() for tensor in tensors if any(tensor is own for own in sums))
        return original_reduce(tensors, world_size)

    original_sums, original_reduce = targets.class_sums, targets.sum_over_ranks
    context = StepContext(config.seed, training.step, rank=0, world_size=2)
    batch = load_batch(splits, config, context._replace(world_size=1), torch.device("cpu"))
    with (
        patch.object(dist, "all_reduce", all_reduce),
        patch.object(targets, "class_sums", class_sums),
        patch.object(targets, "sum_over_ranks", sum_over_ranks),
        patch.object(step, "class_sums", class_sums),
        patch.object(step, "sum_over_ranks", sum_over_ranks),
    ):
        for _ in step.css_step(training.student, training.teacher, training.prototypes, batch, config, context):
            pass
    return Traffic(prototypes, messages)
