"""The step as one graph: `compute.graph`.

Numbers and random draws are inputs of the graph, so that it serves every step, and every trial of a process that
differs in numbers alone. CUDA captures it once it has run, and then replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from trainers.compute import compiled, in_precision
from trainers.config import StreamsConfig, StrongAugmentConfig, TrainConfig
from trainers.css.bank import Bank
from trainers.css.prototypes import Prototypes
from trainers.run import Run
from trainers.step import StepOutput, css_step, draw_contrast, draw_for_bank
from trainers.targets import Batch, StepContext, StepDraws, draw_views

Model = TypeVar("Model", bound=BaseModel)


Step = Callable[[nn.Module, nn.Module, Prototypes, Batch, StepContext, Bank | None], Iterator[StepOutput]]
"""`css_step` of one config."""


def step_of(config: TrainConfig, run: Run) -> Step:
    """Return the step of a training, which is one graph if `compute.graph` is set; see `check_batches`."""
    if not config.compute.graph:
        return lambda student, teacher, prototypes, batch, context, bank: css_step(
            student, teacher, prototypes, batch, config, context, bank
        )
    inputs = as_inputs(config, run.device)

    def take(
        student: nn.Module,
        teacher: nn.Module,
        prototypes: Prototypes,
        batch: Batch,
        context: StepContext,
        bank: Bank | None,
    ) -> Iterator[StepOutput]:
        place = StepContext(0, 0, warming_up=context.warming_up, draws=_draw(teacher, batch, config, context))
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with in_precision(config, run.device):
            output = _graph()(student, teacher, prototypes, batch, inputs, place, bank)
        yield tree_map_only(Tensor, Tensor.clone, output)  # a replay writes where the one before it did

    return take


def as_inputs(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the config as the graph sees it: with tensors for numbers, and without what acts outside of it alone.

    Strong augmentation is there only in being on or off, since its numbers are in the draws; and so are streams, since
    their weights act on what the graph returns.
    """
    loss = config.loss
    weights = None if loss.weights is None else torch.tensor(loss.weights, device=device)

    def numbers(**values: float) -> dict[str, Any]:
        return {name: torch.tensor(value, device=device) for name, value in values.items()}

    thresholds = numbers(
        delta_u=config.thresholds.delta_u, delta_w=config.delta_w_probability, delta_s=config.delta_s_probability
    )
    return _with(
        config,
        augment=_with(config.augment, strong=_switches(config.augment.strong)),
        streams=_streams(config.streams),
        css=_with(config.css, **numbers(indicator_temperature=config.css.indicator_temperature)),
        thresholds=_with(config.thresholds, **thresholds, unit="probability"),
        loss=_with(
            loss,
            **numbers(temperature=loss.temperature, ohem_threshold=loss.ohem_threshold),
            class_weights=weights,
            lambda_s=1.0,
            lambda_u=float(loss.lambda_u > 0),
            lambda_c=float(loss.lambda_c > 0),
        ),
        bank=_with(config.bank, weight=float(config.bank.weight > 0), **numbers(temperature=config.bank.temperature)),
        ema=_with(config.ema, **numbers(prototype_momentum=config.ema.prototype_momentum)),
    )


def _switches(strong: StrongAugmentConfig) -> StrongAugmentConfig:
    names = ("jitter", "grey", "blur", "mix_probability", "flip", "shift")
    on = {name: float(getattr(strong, name) > 0) for name in names}
    return _with(strong, **on, scale=strong.scale if strong.scale == (1.0, 1.0) else (0.5, 2.0))


def _streams(streams: StreamsConfig) -> StreamsConfig:
    return _with(streams, **{
        name: _with(
            stream,
            weight=float(stream.weight > 0),
            strong=None if stream.strong is None else _switches(stream.strong),
        )
        for name, stream in streams
    })  # fmt: skip


def _with(model: Model, **values: Any) -> Model:
    return model.model_copy(update=values)


def _draw(teacher: nn.Module, batch: Batch, config: TrainConfig, context: StepContext) -> StepDraws:
    bank = draw_for_bank(batch.labels, config, context) if config.bank.weight > 0 else None
    if batch.unlabelled is None:
        return StepDraws((), None, bank)
    streams = draw_views(teacher, batch.unlabelled, config, context)
    return StepDraws(streams, draw_contrast(config, context, batch.images.device), bank)


@cache
def _graph() -> Any:
    return compiled(_whole, whole=True)


def _whole(*arguments: Any) -> StepOutput:
    (output,) = css_step(*arguments)
    return output
