"""Crops and windows need not be multiples of the networks' stride: training and evaluation hold for them."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from reference.tiny import tiny_config

from trainers.config import TrainConfig
from trainers.data.splits import open_splits
from trainers.evaluate import predictions
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.state import TrainState
from trainers.step import css_step
from trainers.targets import StepContext

CPU = torch.device("cpu")
DEEPLAB = {
    "model.arch": "deeplabv3plus",
    "model.backbone": "resnet18",
    "model.aspp_width": 16,
    "model.head_width": 16,
}
NETWORKS: dict[str, Mapping[str, Any]] = {
    "tiny": {},
    "resnet18 at stride 16": {**DEEPLAB, "model.output_stride": 16},
    "resnet18 at stride 8": {**DEEPLAB, "model.output_stride": 8},
    "light": {"model.arch": "light", "model.encoder": "mobilenetv3_small_050", "model.head_width": 16},
    "an encoder at stride 8": {**DEEPLAB, "model.output_stride": 8, "model.encoder": "mobilenetv3_small_050"},
}
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
PUBLISHED = {
    "augment.weak.scale": (1.0, 1.0),
    "augment.labelled": {"scale": (0.5, 1.5), "scale_draw": "uniform", "flip": 0.5, "jitter": 0.8, "blur": 0.5},
    "augment.strong.scale": (0.5, 1.5),
    "augment.strong.scale_draw": "uniform",
    "augment.strong.place": "anywhere",
    "augment.strong.order": "mix_first",
    "augment.strong.box": "half",
    "augment.strong.flip": 0.5,
}
CROP = (33, 37)
LOSSES = ("supervised", "unsupervised", "contrast")


def config_of(network: Mapping[str, Any], **changes: Any) -> TrainConfig:
    """Images of 40 px, crops and windows that no stride divides."""
    return tiny_config(
        {
            "data.image_size": 40,
            "augment.weak.crop": CROP,
            "evaluation.window": (33, 33),
            "evaluation.mode": "sliding",
            "schedule.steps": 3,
            "schedule.evaluate_every": 2,
            **network,
            **changes,
        }
    )


@each_network
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("mode", "augment"), [("whole", {}), ("sliding", PUBLISHED)], ids=["whole", "published"])
def test_a_training_on_odd_crops_learns_from_all_losses_and_is_evaluated(
    network: Mapping[str, Any], accumulate: int, mode: str, augment: Mapping[str, Any]
) -> None:
    reports: list[dict[str, float]] = []
    # Every pixel counts from the first step on, whatever the young teacher thinks of it.
    every = {
        "thresholds.delta_u": 0.0,
        "thresholds.delta_w": 0.0,
        "thresholds.delta_s": 1.0,
        "css.label_strategy": "logit",
    }
    config = config_of(network, **{"schedule.accumulate": accumulate, "evaluation.mode": mode, **every, **augment})
    state = train(config, LocalRun(device=CPU, listener=lambda metrics: reports.append(dict(metrics))))
    assert state.step == 3
    assert len(reports) == 2
    assert all(report[f"train/loss/{name}"] > 0 for report in reports for name in LOSSES)
    assert all(math.isfinite(value) for report in reports for value in report.values())
    assert 0 <= reports[-1]["dev/miou"] <= 1


@each_network
def test_a_network_at_odd_sizes_has_a_cell_for_each_four_pixels_begun(network: Mapping[str, Any]) -> None:
    config = config_of(network)
    state = TrainState(config, LocalRun(device=CPU))
    logits, representations, *_ = state.student(torch.rand(2, 3, *CROP))
    assert logits.shape == (2, 11, 9, 10)
    assert representations.shape == (2, 16, 9, 10)


@each_network
def test_every_parameter_has_a_gradient_from_odd_crops(network: Mapping[str, Any]) -> None:
    config = config_of(network)
    state = TrainState(config, LocalRun(device=CPU))
    batch = load_batch(open_splits(config.data), config, StepContext(0, 0), CPU)
    assert batch.images.shape[-2:] == CROP
    (output,) = css_step(state.wrapped, state.teacher, state.prototypes, batch, config, StepContext(0, 0))
    torch.stack(list(output.losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in state.student.parameters())


@each_network
@pytest.mark.parametrize("mode", ["whole", "sliding"])
@pytest.mark.parametrize("size", [(40, 40), (33, 33), (57, 71), (20, 90)])
def test_every_pixel_of_an_image_of_any_size_is_labelled(
    network: Mapping[str, Any], mode: str, size: tuple[int, int]
) -> None:
    config = config_of(network, **{"evaluation.mode": mode})
    model = TrainState(config, LocalRun(device=CPU)).teacher.eval()
    (label,) = predictions(model, torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)), config)
    assert label.shape == size
    assert 0 <= label.min() <= label.max() < 11


@pytest.mark.parametrize("side", [321, 513, 518, 769, 798, 801])
def test_published_crops_and_windows_are_accepted(side: int) -> None:
    config = tiny_config({"augment.weak.crop": (side, side), "evaluation.window": (side, side)})
    assert config.augment.weak.crop == config.evaluation.window == (side, side)
