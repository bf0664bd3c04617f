"""What is trained on a card: presets on invented images, which cost what theirs do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_rows import Setting
from measuring import device_clock
from reference.tiny import tiny_config
from sizes import FULL, QUICK, Size, train_config, write_images

from trainers.config import TrainConfig
from trainers.local_run import LocalRun
from trainers.loop import train, warm_up
from trainers.overrides import apply_overrides
from trainers.presets import load_preset
from trainers.run import Decision

WARM_STEPS = 5
"""Steps before those that are timed: graphs are captured in them, and algorithms chosen."""


PAPER = (
    ("VOC, 512 px", "voc_css_92", (376, 500)),
    ("Cityscapes, 768 px", "cityscapes_css_186", (1024, 2048)),
    ("ADE20K, 512 px", "ade20k_css", (512, 684)),
)
"""Names, presets, and height and width of the images that are stored."""


class Work(NamedTuple):
    """A configuration by its name."""

    name: str
    config: TrainConfig


def works(setting: Setting, root: Path) -> Iterator[Work]:
    """Yield what is measured on a device; images are written below `root`, once."""
    if setting.quick:
        yield Work("tiny, 33 px", _with_images(train_config(QUICK, root / "tiny"), QUICK, root / "tiny"))
        return
    yield Work("digits", digits())
    if not setting.cuda:
        yield Work("ResNet-50, 129 px", _with_images(train_config(FULL, root / "full"), FULL, root / "full"))
        return
    for name, preset, stored in PAPER:
        yield Work(name, _published(preset, stored, root / preset))


def digits(settings: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the preset of digits with a short evaluation, which is not what is timed."""
    short = {"data.dev": 32, "data.unlabelled": 128, "evaluation.quality_images": 0}
    return apply_overrides(load_preset("digits_css"), {**short, **(settings or {})})


def small(setting: Setting, settings: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return a training of seconds, for what counts rather than times."""
    return in_steps(tiny_config(settings), setting.of(4, 20, 20))


def get_ready(config: TrainConfig, device: torch.device) -> float:
    """Do as a gang does before its trials, and take a few steps more; return the seconds: compilation is in them."""
    now = device_clock(device)
    began = now()
    warm_up(config, LocalRun(device=device))
    train(in_steps(config, WARM_STEPS), LocalRun(device=device))
    return now() - began


def step_s(config: TrainConfig, device: torch.device, steps: int) -> float:
    """Return the mean seconds of a training's steps, its evaluation left out; images are read meanwhile."""
    reports: list[Mapping[str, float]] = []

    def listen(metrics: Mapping[str, float]) -> Decision:
        reports.append(metrics)
        return Decision.CONTINUE

    train(in_steps(config, steps), LocalRun(device=device, listener=listen))
    return reports[-1]["time/step_s"]


def in_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """Return the training with so many steps and one report."""
    return apply_overrides(config, {"schedule.steps": steps, "schedule.evaluate_every": steps})


def _published(preset: str, stored: tuple[int, int], root: Path) -> TrainConfig:
    """Return a preset of the paper, on a folder of invented images of about the size that its data set has."""
    config = load_preset(preset)
    folder = {
        "data.name": "folder",
        "data.root": root,
        "data.classes": tuple(f"class {index}" for index in range(config.num_classes)),
        "data.height": stored[0],
        "data.width": stored[1],
        "data.labelled": 16,
        "data.dev": 1,
        "data.allow_missing": True,
        "model.backbone_weights": "none",
    }
    size = FULL._replace(classes=config.num_classes, files=stored, images=24)
    return _with_images(apply_overrides(config, folder), size, root)


def _with_images(config: TrainConfig, size: Size, root: Path) -> TrainConfig:
    if not root.exists():
        write_images(size, root)
    return config
