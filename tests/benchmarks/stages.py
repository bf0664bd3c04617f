"""A training step split into its stages, by timing the functions that it calls where it calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from measuring import Clock
from torch import Tensor, nn

from trainers import loader, state, step, targets
from trainers.compute import in_precision
from trainers.config import TrainConfig
from trainers.data.splits import Splits
from trainers.loader import load_batch
from trainers.models.heads import Dense
from trainers.schedules import loss_weights
from trainers.state import TrainState
from trainers.step import css_step
from trainers.streams import Keep
from trainers.targets import StepContext

NETWORK = ("teacher, forward", "student, forward", "student, backward", "optimizer")
OUTSIDE = (
    "images from the cache",
    "weak augmentation",
    "pseudo-labels",
    "strong augmentation",
    "cross-entropies",
    "contrast",
    "losses, backward",
    "prototypes",
    "teacher, average",
    "everything else",
)
_CALLS = (
    (loader, "_read", "images from the cache"),
    (loader, "weak_augment", "weak augmentation"),
    (targets, "forward", "teacher, forward"),
    (targets, "pseudo_labels", "pseudo-labels"),
    (targets, "collaborate", "pseudo-labels"),
    (targets, "valid_labels", "prototypes"),
    (targets, "class_sums", "prototypes"),
    (targets, "draw_views", "strong augmentation"),
    (targets, "apply_strong", "strong augmentation"),
    (targets, "supervised_divisor", "cross-entropies"),
    (targets, "unsupervised_divisor", "cross-entropies"),
    (step, "upsample", "cross-entropies"),
    (step, "_supervised", "cross-entropies"),
    (step, "_unsupervised", "cross-entropies"),
    (step, "_contrast_pixels", "contrast"),
    (step, "_contrast", "contrast"),
    (step, "update_prototypes", "prototypes"),
    (state, "update_teacher", "teacher, average"),
)


def take_step(training: TrainState, splits: Splits, config: TrainConfig) -> None:
    """One step of the training loop, its report left out."""
    context = StepContext(config.seed, training.step)
    batch = load_batch(splits, config, context, training.prototypes.values.device)
    weights = loss_weights(config, training.step)
    networks = training.wrapped, training.teaching
    for part in css_step(*networks, training.prototypes, batch, config, context, training.bank, training.judging):
        training.accumulate(part.weighted(weights))
    training.advance(part.prototypes, part.bank)


class StagedStep:
    """Takes the same step, and says how long each stage took.

    The graph is cut where the heads end, so that the backward of the losses is told from that of the network.
    """

    def __init__(self, now: Clock) -> None:
        self.now = now
        self.seconds: dict[str, float] = {}
        self._cut: list[tuple[Dense, Dense]] = []

    def take(self, training: TrainState, splits: Splits, config: TrainConfig) -> dict[str, float]:
        """Seconds of each stage, in the order of NETWORK and OUTSIDE."""
        self.seconds = dict.fromkeys((*NETWORK, *OUTSIDE), 0.0)
        with self._watching(training):
            started = self.now()
            take_step(training, splits, config)
            whole = self.now() - started
        self.seconds["everything else"] = whole - sum(self.seconds.values())
        return self.seconds

    @contextmanager
    def _watching(self, training: TrainState) -> Iterator[None]:
        with ExitStack() as patches:
            for module, name, stage in _CALLS:
                patches.enter_context(patch.object(module, name, self._timed(getattr(module, name), stage)))
            patches.enter_context(patch.object(step, "forward", self._forward_and_cut(step.forward)))
            backward = partial(self._backward, training.config)
            patches.enter_context(patch.object(training, "accumulate", backward))
            optimize = self._timed(training.optimizer.step, "optimizer")
            patches.enter_context(patch.object(training.optimizer, "step", optimize))
            yield

    @contextmanager
    def _time(self, stage: str) -> Iterator[None]:
        started = self.now()
        yield
        self.seconds[stage] += self.now() - started

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._time(stage):
                return function(*args, **kwargs)

        return timed

    def _forward_and_cut(self, forward: Callable[..., Dense]) -> Callable[..., Dense]:
        def cut(model: nn.Module, images: Tensor, config: TrainConfig, keep: Keep | None = None) -> Dense:
            with self._time("student, forward"):
                seen = forward(model, images, config, keep)
            leaves = seen.each(lambda maps: maps.detach().requires_grad_())
            self._cut.append((seen, leaves))
            return leaves

        return cut

    def _backward(self, config: TrainConfig, loss: Tensor) -> None:
        precision = partial(in_precision, config, loss.device)
        with self._time("losses, backward"), precision():
            loss.backward()
        with self._time("student, backward"), precision():
            for seen, leaves in self._cut:
                cut = [(maps, leaf.grad) for maps, leaf in zip(seen, leaves, strict=True) if maps is not None]
                torch.autograd.backward(*zip(*cut, strict=True))
        self._cut.clear()
