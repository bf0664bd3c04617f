"""The step as one graph: `compute.graph`.

Numbers and random draws are inputs of the graph, so that it serves every step, and every trial of a process that
differs in numbers alone. CUDA captures it once it has run, and then replays it. Where there can be no graph, that is
said once, and steps run as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from trainers.step import StepOutput, added_up, css_step, draw_contrast, draw_for_bank
from trainers.targets import Batch, StepContext, StepDraws, draw_order, draw_views
from trainers.transfer import send

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")

FORMING = 3
"""Steps until CUDA has run a graph, captured it and replayed it."""

_failed: dict[str, str] = {}  # settings that no graph could be made of in this process, and why


class NoGraphError(Exception):
    """The compiler or CUDA cannot make one graph of a step."""


Step = Callable[
    [nn.Module, nn.Module, Prototypes, Batch, StepContext, Bank | None, nn.Module | None], Iterator[StepOutput]
]
"""`css_step` of one config."""


def step_of(config: TrainConfig, run: Run) -> Step:
    """Return the step of a training, which is one graph if `compute.graph` is set and nothing is against it."""
    if not is_graph(config, run.world_size):
        return lambda student, teacher, prototypes, batch, context, bank, discriminator: css_step(
            student, teacher, prototypes, batch, config, context, bank, discriminator
        )
    inputs = as_inputs(config, run.device)

    def take(
        student: nn.Module,
        teacher: nn.Module,
        prototypes: Prototypes,
        batch: Batch,
        context: StepContext,
        bank: Bank | None,
        discriminator: nn.Module | None,
    ) -> Iterator[StepOutput]:
        passed = torch.tensor(context.progress(config.schedule.steps))
        place = StepContext(
            0, 0, warming_up=context.warming_up, draws=_draw(teacher, batch, config, context),
            passed=send(passed, run.device) if config.ranks_entropy else None,
        )  # fmt: skip
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with in_precision(config, run.device):
            output = _graph()(student, teacher, prototypes, batch, inputs, place, bank, discriminator)
        yield tree_map_only(Tensor, Tensor.clone, output)  # a replay writes where the one before it did

    return take


def is_graph(config: TrainConfig, world_size: int) -> bool:
    """Return whether the steps of a training are one graph; why they are not, though they should be, is said once."""
    if not config.compute.graph:
        return False
    hindrances = {
        f"{world_size} workers wait for each other": world_size > 1,
        f"a step has {config.schedule.accumulate} parts (schedule.accumulate)": config.schedule.accumulate > 1,
        "compute.compile has graphs of its own": config.compute.compile,
    }
    why = next((why for why, is_so in hindrances.items() if is_so), "") or _failed.get(_static(config), "")
    if why:
        _say(f"compute.graph has no effect, steps run as they are: {why}")
    return not why


@contextmanager
def forming(config: TrainConfig, run: Run, step: int) -> Iterator[None]:
    """Run one of the first steps of a graph, the `step`-th from 0 on, which may turn out to be impossible.

    Raises:
        NoGraphError: it is; from now on the steps of such settings run as they are.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if step >= FORMING or not is_graph(config, run.world_size):
            raise
        first = next(iter(str(error).splitlines()), "")
        _failed[_static(config)] = f"{type(error).__name__}: {first}"
        raise NoGraphError from error


def as_graph_or_as_it_is(train: Callable[[], Result]) -> Result:
    """Return what a training returns; it is begun anew where its graph turned out to be impossible."""
    try:
        return train()
    except NoGraphError:
        return train()


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
        delta_u=config.thresholds.delta_u, delta_w=config.delta_w_probability, delta_s=config.delta_s_probability,
        percentile=config.thresholds.percentile,
    )  # fmt: skip
    adversary, indicated = config.adversary, config.css.indicator_temperature
    unreliable = numbers(share=config.unreliable.share, anchor_confidence=config.unreliable.anchor_confidence)
    return _with(
        config,
        augment=_with(config.augment, strong=_switches(config.augment.strong)),
        streams=_streams(config.streams),
        css=_with(config.css, **numbers(indicator_temperature=indicated)),
        adversary=_with(
            adversary,
            weight_labelled=float(adversary.weight_labelled > 0),
            weight_unlabelled=float(adversary.weight_unlabelled > 0),
            lr=1.0,
        ),
        thresholds=_with(config.thresholds, **thresholds, unit="probability"),
        loss=_with(
            loss,
            **numbers(temperature=loss.temperature, ohem_threshold=loss.ohem_threshold),
            class_weights=weights,
            lambda_s=1.0,
            labelled_first=0.0,
            auxiliary=1.0,
            lambda_u=float(loss.lambda_u > 0),
            lambda_c=float(loss.lambda_c > 0),
            lambda_w=float(loss.lambda_w > 0),
        ),
        bank=_with(config.bank, weight=float(config.bank.weight > 0), **numbers(temperature=config.bank.temperature)),
        unreliable=_with(config.unreliable, **unreliable),
        ema=_with(config.ema, **numbers(prototype_momentum=config.ema.prototype_momentum)),
    )


def _static(config: TrainConfig) -> str:
    """Return all that a graph is made for: no numbers that are its inputs."""
    inputs = as_inputs(config, torch.device("meta"))
    parts = (
        inputs.model,
        inputs.augment,
        inputs.streams,
        inputs.css,
        inputs.loss,
        inputs.bank,
        inputs.adversary,
        inputs.compute,
    )
    batches = inputs.schedule.labelled_batch, inputs.schedule.unlabelled_batch
    return f"{inputs.data.name} {batches} {parts} {inputs.thresholds.kind} {inputs.unreliable}"


@cache
def _say(what: str) -> None:
    warnings.warn(what, stacklevel=3)


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
    device = batch.images.device
    order = send(torch.tensor(draw_order(context)), device) if config.uses_unreliable else None
    return StepDraws(streams, draw_contrast(config, context, device), bank, order)


@cache
def _graph() -> Any:
    return compiled(_whole, whole=True)


def _whole(*arguments: Any) -> StepOutput:
    parts = list(css_step(*arguments))
    return parts[0] if len(parts) == 1 else added_up(parts)  # one backward is one graph, whatever its forwards
