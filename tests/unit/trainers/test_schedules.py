"""Schedules are closed forms of the step."""

import math
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.config import (
    CssConfig,
    EmaConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    StreamConfig,
    StreamsConfig,
    TrainConfig,
)
from trainers.schedules import cross_warmup_steps, learning_rate, loss_weights, teacher_momentum


@pytest.mark.parametrize(
    ("power", "step", "expected"),
    [(0.9, 0, 0.2), (0.9, 50, 0.2 * 0.5**0.9), (0.9, 99, 0.2 * 0.01**0.9), (1.0, 75, 0.05), (0.0, 99, 0.2)],
)
def test_the_learning_rate_is_a_power_of_what_is_left(power: float, step: int, expected: float) -> None:
    assert math.isclose(learning_rate(OptimizerConfig(lr=0.2, power=power), step, 100), expected)


@given(steps=st.integers(1, 10**6), data=st.data())
def test_the_learning_rate_is_positive_and_never_rises(steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    config = OptimizerConfig(lr=0.2)
    rate = learning_rate(config, step, steps)
    assert rate > 0
    assert step == 0 or rate <= learning_rate(config, step - 1, steps)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.2), (50, 0.05 + 0.15 * 0.5**0.9), (99, 0.05 + 0.15 * 0.01**0.9)])
def test_the_learning_rate_falls_to_its_floor(step: int, expected: float) -> None:
    config = OptimizerConfig(lr=0.2, min_lr=0.05, power=0.9)
    assert math.isclose(learning_rate(config, step, 100), expected)


def test_the_published_floor_of_the_learning_rate_is_a_maximum() -> None:
    config = OptimizerConfig(lr=0.0064, min_lr=1e-4, min_lr_rule="max")
    assert math.isclose(learning_rate(config, 20_000, 40_000), 0.0064 * 0.5**0.9)
    assert learning_rate(config, 39_999, 40_000) == 1e-4


@pytest.mark.parametrize(("unit", "warmup", "steps"), [
    ("share", 0.2, 200), ("steps", 30, 30), ("epochs", 2, 125), ("labelled_epochs", 20, 230),
])  # fmt: skip
def test_the_warm_up_of_cross_is_a_share_steps_or_passes_through_the_images(
    unit: Literal["share", "steps", "epochs", "labelled_epochs"], warmup: float, steps: float
) -> None:
    css = CssConfig(cross_warmup=warmup, cross_warmup_unit=unit)
    # 500 unlabelled images in batches of 8 are 62.5 steps an epoch; 92 labelled ones, 11.5.
    schedule = ScheduleConfig(steps=1000, labelled_batch=8, unlabelled_batch=8)
    assert cross_warmup_steps(css, schedule, 92, 500) == steps


def weighted(**loss: Any) -> TrainConfig:
    return TrainConfig(loss=LossConfig(**loss), schedule=ScheduleConfig(steps=100))


@pytest.mark.parametrize(("step", "share"), [(0, 1.0), (50, math.exp(-1.25)), (100, math.exp(-5))])
def test_the_contrastive_weight_ramps_down_on_the_whole_horizon(step: int, share: float) -> None:
    assert math.isclose(loss_weights(weighted(lambda_c=0.4), step)["contrast"], 0.4 * share)


def test_a_constant_ramp_keeps_the_contrastive_weight() -> None:
    config = weighted(lambda_c=0.4, lambda_c_ramp="constant")
    assert {loss_weights(config, step)["contrast"] for step in (0, 50, 99)} == {0.4}


def test_the_other_weights_do_not_ramp() -> None:
    weights = loss_weights(weighted(lambda_u=0.7), 60)
    assert (weights["supervised"], weights["unsupervised"]) == (1.0, 0.7)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (24, 0.0), (25, 0.7), (99, 0.7)])
def test_while_labelled_images_come_first_the_other_losses_weigh_nothing(step: int, weight: float) -> None:
    loss = {"lambda_u": 0.7, "lambda_c": 0.7, "lambda_c_ramp": "constant", "labelled_first": 0.25}
    weights = loss_weights(weighted(**loss), step)
    assert (weights["supervised"], weights["unsupervised"], weights["contrast"]) == (1.0, weight, weight)


def test_the_weight_of_l_u_multiplies_those_of_its_streams() -> None:
    streams = StreamsConfig(first=StreamConfig(weight=0.25), third=StreamConfig(weight=0.5))
    weights = loss_weights(weighted(lambda_s=0.5, lambda_u=0.5).model_copy(update={"streams": streams}), 0)
    of_streams = {name: weights[name] for name in weights if name.startswith("unsupervised")}
    assert of_streams == {"unsupervised": 0.125, "unsupervised_third": 0.25}
    assert weights["supervised"] == 0.5


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (1, 0.5), (3, 0.75), (98, 1 - 1 / 99), (99, 0.99), (10**6, 0.99)]
)
def test_the_teachers_momentum_warms_up_to_its_setting(step: int, expected: float) -> None:
    assert math.isclose(teacher_momentum(EmaConfig(teacher_momentum=0.99), step), expected, abs_tol=1e-15)
