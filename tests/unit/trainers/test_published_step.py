"""One whole step of CSS (mix) as the published scripts run it, on given inputs, against the trainer's."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from reference.plain_augment import Draws
from reference.published_step import Settings, Step, published_step
from reference.tiny import tiny_config, whole_step
from torch import Tensor

from trainers.augment.geometry import draw_geometry
from trainers.augment.mixing import draw_mix
from trainers.augment.photometric import draw_blur, draw_grey, draw_jitter
from trainers.config import TrainConfig
from trainers.css.prototypes import Prototypes, class_sums
from trainers.data.splits import open_splits
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.methods import METHODS
from trainers.presets import load_preset
from trainers.randomness import generator
from trainers.schedules import learning_rate
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.targets import Batch, StepContext

STEP, UNSEEN = 7, 4
SHARPNESS = 40.0
"""A factor on the last layer of the logits: a network that never trained is sure of nothing."""


def released_config(changes: dict[str, Any]) -> TrainConfig:
    """The published augmentation, losses and optimizer on images and a network that are small."""
    published = load_preset("voc_released_92")
    strong = published.augment.strong.model_dump()
    settings = {
        **METHODS["css_mix_released"],
        "loss.lambda_u": 1.0,
        "loss.lambda_c": 1.0,
        "schedule.joint_forward": published.schedule.joint_forward,
        "optimizer.lr": 0.01,
        "optimizer.weight_decay": published.optimizer.weight_decay,
        "thresholds.delta_w": published.thresholds.delta_w,
        "thresholds.delta_u": published.thresholds.delta_u,
        "loss.temperature": 0.5,
        "loss.negatives": 1,
        "loss.queries": 4096,
        "loss.negative_groups": 4096,
        **{f"augment.strong.{name}": value for name, value in strong.items()},
    }
    return tiny_config({**settings, **changes})


def network_state(config: TrainConfig, images: Tensor) -> TrainState:
    """Networks that are sure of some of their labels, and prototypes near what the teacher says of each class."""
    state = TrainState(config, LocalRun())
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for network in (state.student, state.teacher):
            for parameter in network.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=draws)
            network.heads.segment[-1].weight *= SHARPNESS
        out = copy.deepcopy(state.teacher).train()(images)
    sums = class_sums(out.representations, out.logits.argmax(dim=1), config.num_classes)
    values = sums.sums + torch.randn(sums.sums.shape, generator=draws)
    seen = torch.arange(config.num_classes) != UNSEEN
    state.prototypes = Prototypes(values * seen.unsqueeze(1), seen)
    state.step = STEP
    return state


def both(changes: dict[str, Any]) -> tuple[TrainConfig, TrainState, StepOutput, Step]:
    """The step of the trainer, its state after it, and the reference's."""
    config = released_config(changes)
    batch = load_batch(open_splits(config.data), config, StepContext(config.seed, STEP), torch.device("cpu"))
    assert batch.unlabelled is not None
    state = network_state(config, batch.unlabelled)
    batch = Batch(batch.images, batch.labels, batch.unlabelled, None)
    size = (batch.images.shape[-2], batch.images.shape[-1])
    g, count = generator(config.seed, "augment.strong", STEP), len(batch.unlabelled)
    strong = config.augment.strong
    geometry, jitter, blur = (draw(strong, count, g) for draw in (draw_geometry, draw_jitter, draw_blur))
    draws = Draws(geometry, jitter, blur, draw_mix(strong, count, size, g), draw_grey(strong, count, g))
    settings = Settings(
        strong, lr=learning_rate(config.optimizer, STEP, config.schedule.steps),
        weight_decay=config.optimizer.weight_decay, prototype_momentum=config.ema.prototype_momentum,
    )  # fmt: skip
    prototypes = {
        index: state.prototypes.values[index].double().numpy() for index in range(config.num_classes) if index != UNSEEN
    }
    expected = published_step(
        state.student, state.teacher, prototypes, (batch.images, batch.labels, batch.unlabelled), draws, STEP, settings
    )
    context = StepContext(config.seed, STEP)
    output = whole_step(state.wrapped, state.teacher, state.prototypes, batch, config, context)
    state.accumulate(output.losses["supervised"] + output.losses["unsupervised"])
    state.advance(output.prototypes)
    return config, state, output, expected


@pytest.fixture(scope="module", params=["cutmix", "classmix", "cutout"])
def steps(request: pytest.FixtureRequest) -> tuple[TrainConfig, TrainState, StepOutput, Step]:
    return both({"augment.strong.mix": request.param})


def test_the_case_is_not_an_empty_one(steps: tuple[TrainConfig, TrainState, StepOutput, Step]) -> None:
    _, _, output, expected = steps
    labelled = expected.labels != 255
    assert 0.05 < labelled.mean() < 0.95
    assert min(expected.supervised, expected.unsupervised, expected.contrast) > 0.05
    assert 0 < output.statistics["share/hard"] <= 1


def test_losses_are_those_of_the_published_step(steps: tuple[TrainConfig, TrainState, StepOutput, Step]) -> None:
    _, _, output, expected = steps
    assert output.losses["supervised"].item() == pytest.approx(expected.supervised, rel=1e-4)
    assert output.losses["unsupervised"].item() == pytest.approx(expected.unsupervised, rel=2e-3)
    assert output.losses["contrast"].item() == pytest.approx(expected.contrast, rel=0.02)  # 4096 draws a class


def test_prototypes_are_those_of_the_published_step(steps: tuple[TrainConfig, TrainState, StepOutput, Step]) -> None:
    config, state, _, expected = steps
    seen = [index for index in range(config.num_classes) if state.prototypes.seen[index]]
    assert seen == sorted(expected.prototypes)
    for index, prototype in expected.prototypes.items():
        np.testing.assert_allclose(state.prototypes.values[index].numpy(), prototype, rtol=2e-3, atol=2e-3)


def test_weights_are_those_of_the_published_step(steps: tuple[TrainConfig, TrainState, StepOutput, Step]) -> None:
    _, state, _, expected = steps
    for network, parameters in ((state.student, expected.student), (state.teacher, expected.teacher)):
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.detach().double(), parameters[name], rtol=1e-3, atol=1e-4, msg=name)
