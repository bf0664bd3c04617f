"""What a card computes: losses of every method beside the CPU's, waits of the host, and whether numbers repeat."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gpu_rows import NEEDS_CUDA, Row, Setting, failed, missing
from gpu_works import small, step_s
from reference.tiny import differences
from torch import Tensor
from torch.utils._pytree import tree_map_only

from trainers import step
from trainers.compute import step_algorithms
from trainers.config import TrainConfig
from trainers.data.splits import open_splits
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.overrides import apply_overrides
from trainers.schedules import loss_weights
from trainers.state import TrainState
from trainers.step import css_step
from trainers.targets import StepContext
from trainers.transfer import send

CPU = torch.device("cpu")
STEPS = 3
SMALL_LOSS = 1e-3
"""Differences are relative to a loss, but to no less than this."""
DEEP = {
    "model.arch": "deeplabv3plus",
    "model.backbone": "resnet18",
    "model.aspp_width": 16,
    "model.head_width": 16,
}
"""Max-pooling and upsampling in the network, whose gradients are not repeatable on CUDA by themselves."""
SPACES: dict[str, Mapping[str, Any]] = {
    f"{strategy} by {indicator}": {"css.label_strategy": strategy, "css.indicator": indicator}
    for strategy in ("logit", "representation", "mix", "cross")
    for indicator in ("similarity", "confidence")
}
OTHERS: dict[str, Mapping[str, Any]] = {
    "OHEM and class weights": {"loss.supervised": "ohem", "loss.class_weights": (1.0,) * 11},
    "classmix": {"augment.strong.mix": "classmix"},
    "two parts a step": {"schedule.accumulate": 2},
    "group normalisation": {"model.norm": "group"},
    "AdamW": {"optimizer.kind": "adamw", "optimizer.lr": 0.003},
    "DeepLabV3+": DEEP,
    "bfloat16": {"compute.precision": "bfloat16"},
    "tf32": {"compute.precision": "tf32"},
}

QUICK = {name: METHODS[name] for name in ("supervised", "css_mix")}


def measure_losses(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the largest relative difference of a loss from the CPU's in float32, and how often the host waited."""
    waits = {}
    for name, settings in (QUICK if setting.quick else {**METHODS, **SPACES, **OTHERS}).items():
        config, of = small(setting, settings), "largest difference, relative to a loss"
        try:
            expected = _losses(apply_overrides(config, {"compute.precision": "float32"}), CPU)[0]
            found, waits[name] = _losses(config, setting.device)
        except Exception as error:
            yield failed(name, error, of)
            continue
        yield Row(name, difference(found, expected), of=of)
    of = "waits of the host in a step"
    if not setting.cuda:
        yield missing("at most", NEEDS_CUDA, of)
    elif waits:
        most = max(waits, key=waits.__getitem__)
        yield Row("at most", waits[most], note=f"{most}; of {len(waits)} settings", of=of)


def difference(found: list[dict[str, float]], expected: list[dict[str, float]]) -> float:
    """Return the largest relative difference of two courses of losses; infinite where one is no number."""
    pairs = [(one[name], other[name]) for one, other in zip(found, expected, strict=True) for name in other]
    apart = [abs(one - other) / max(abs(other), SMALL_LOSS) for one, other in pairs]
    return max(one if math.isfinite(one) else math.inf for one in apart)


def _losses(config: TrainConfig, device: torch.device) -> tuple[list[dict[str, float]], float]:
    """Return the losses of the first steps, and how often the host waited in one, on average."""
    training, splits, losses, waited = TrainState(config, LocalRun(device=device)), open_splits(config.data), [], 0
    with _draws_of_the_cpu(), step_algorithms(config, device):
        for at in range(STEPS):
            context, found = StepContext(config.seed, at), dict[str, Tensor]()
            weights = loss_weights(config, at)
            with _counted_waits(device) as waits:
                batch = load_batch(splits, config, context, device)
                networks = training.wrapped, training.teaching
                kept = training.bank, training.judging
                for part in css_step(*networks, training.prototypes, batch, config, context, *kept):
                    training.accumulate(part.weighted(weights))
                    found = {name: found.get(name, 0.0) + value.detach() for name, value in part.losses.items()}
                training.advance(part.prototypes, part.bank)
            waited += len(waits) if at else 0  # the first step sets things up
            losses.append({name: value.item() for name, value in found.items()})
    return losses, waited / (STEPS - 1)


@contextmanager
def _draws_of_the_cpu() -> Iterator[None]:
    """Draw the samples of the contrastive loss on the CPU: a card's generator gives other numbers."""
    draw = step.draw_contrast

    def on_cpu(config: TrainConfig, context: StepContext, device: torch.device, index: int = 0) -> Any:
        return tree_map_only(Tensor, lambda drawn: send(drawn, device), draw(config, context, CPU, index))

    with patch.object(step, "draw_contrast", on_cpu):
        yield


@contextmanager
def _counted_waits(device: torch.device) -> Iterator[list[str]]:
    """Yield what torch says about each time that the host waits for the device within."""
    waits: list[str] = []
    if device.type != "cuda":
        yield waits
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits += [str(one.message) for one in said if "synchroniz" in str(one.message)]


def measure_determinism(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield how many tensors of a training's state differ when it is done twice, and what repeating costs."""
    times = {}
    for name, deterministic in (("as it is", False), ("compute.deterministic", True)):
        config = small(setting, {**({} if setting.quick else DEEP), "compute.deterministic": deterministic})
        one, other = (train(config, LocalRun(device=setting.device)).state_dict() for _ in range(2))
        yield Row("tensors that differ between two trainings", len(differences(one, other)), of=name)
        times[name] = step_s(config, setting.device, setting.of(2, 10, 50))
        note = f"{times[name] / times['as it is']:.2f} times as long as it is" if deterministic else ""
        yield Row("step", 1e3 * times[name], "ms", note=note, of=name)
