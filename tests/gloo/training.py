"""A tiny training on a rank or in one process, and how far what it leaves lies from another's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from reference.tiny import tiny_config
from torch import Tensor

from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.run import Decision

CPU = torch.device("cpu")
Settings = Mapping[str, Any]


class Trained(NamedTuple):
    state: dict[str, Any]
    reports: list[dict[str, float]]
    """Of rank 0, without times."""


def trained(overrides: Settings, folder: Path | None = None, stop_at: int | None = None) -> Trained:
    reports: list[dict[str, float]] = []

    def listen(metrics: Mapping[str, float]) -> Decision:
        reports.append({name: value for name, value in metrics.items() if not name.startswith("time/")})
        return Decision.STOP if metrics["step"] == stop_at else Decision.CONTINUE

    torch.set_num_threads(1)
    if overrides.get("model.arch") == "dpt":
        import reference.vits  # noqa: F401 - timm then knows its networks on this rank, too
    run = LocalRun(folder=folder, device=CPU, listener=listen)
    return Trained(train(tiny_config(overrides), run).state_dict(), reports)


def numbers(state: object, path: str = "") -> dict[str, Tensor]:
    """Every tensor and float of a nested state, by its path."""
    if isinstance(state, Mapping):
        return {name: found for key in state for name, found in numbers(state[key], f"{path}/{key}").items()}
    if isinstance(state, Tensor | float):
        return {path: torch.as_tensor(state)}
    return {}


# One process and ranks differ in the order of float32 sums: of gradients over images, of losses over thousands of
# pixels, and in convolutions of other batch sizes. That alone stays below 1e-6 in numbers of order one. But now and
# then it carries a number over an edge: an activation over zero, two classes of a pixel past each other, a confidence
# over its threshold. An edge moves single gradients by up to a hundredth, and a score by a pixel of thousands; a
# divisor that is a rank's own moves all of them by more.
_OF_MOMENTA, _OF_STATES, _OF_LOSSES = 5e-3, 1e-4, 1e-3
"""Relative to the root mean square."""
_OF_SCORES = 5e-3
_ROUNDING = 1e-5
_COUNTED = ("dev/", "quality/", "predicted/", "kept/", "health/predicted_entropy", "train/share/")
"""Metrics that count pixels."""


def far_apart(one: Mapping[str, Any], other: Mapping[str, Any], part: str) -> list[str]:
    """Names of the tensors of a part of the state that are not alike; those that one of them lacks, too."""
    mine, theirs = numbers(one), numbers(other)
    within = _OF_MOMENTA if part == "optimizer" else _OF_STATES

    def size(value: Tensor) -> float:
        return value.double().square().mean().sqrt().item()

    return sorted(mine.keys() ^ theirs.keys()) + [
        name
        for name in mine.keys() & theirs.keys()
        if size(mine[name].double() - theirs[name].double()) > within * size(mine[name]) + _ROUNDING
    ]


def reported_otherwise(one: Mapping[str, float], other: Mapping[str, float]) -> list[str]:
    """Names of the metrics that are not alike; of a class that does not occur there is none, which is taken as zero."""

    def alike(name: str) -> bool:
        mine, theirs = one.get(name, 0.0), other.get(name, 0.0)
        if name.startswith(_COUNTED):
            return abs(mine - theirs) <= _OF_SCORES
        return abs(mine - theirs) <= _OF_LOSSES * abs(mine) + _ROUNDING

    return sorted(name for name in one.keys() | other.keys() if not alike(name))
