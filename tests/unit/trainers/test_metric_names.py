"""The names that a config's reports can hold are those that trainings with it report."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from reference.tiny import tiny_config

from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.metrics import metric_names

SUPERVISED = {"loss.lambda_u": 0.0, "loss.lambda_c": 0.0}
LOGIT = {"loss.lambda_c": 0.0, "css.label_strategy": "logit"}
CONFIGS = [
    {},
    {"loss.lambda_u": 0.0},
    {"loss.lambda_c": 0.0, "css.label_strategy": "mix"},
    LOGIT,
    SUPERVISED,
    {**SUPERVISED, "css.label_strategy": "mix"},
    {"evaluation.both": True},
    {"evaluation.both": True, "evaluation.network": "student"},
    {"evaluation.quality_images": 0},
    METHODS["unimatch"],
    METHODS["unimatch_css"],
    METHODS["pixcon"],
    {**METHODS["u2pl"], "unreliable.anchor_confidence": 0.05},
    METHODS["prcl"],
    {**METHODS["cps"], "evaluation.both": True},
    {**METHODS["unimatch_v2"], "model.auxiliary": "inner", "loss.auxiliary_targets": "all"},
    {**SUPERVISED, "model.auxiliary": "inner", "loss.auxiliary_targets": "all"},
    {"model.auxiliary": "inner"},
    METHODS["adversarial"],
    {"css.indicator": "discriminator"},
    {**SUPERVISED, "adversary.weight_labelled": 0.01},
    {"loss.lambda_w": 1.0, "css.veto": True},
    {"loss.supervised": "ohem", "ema.prototype_source": "student", "schedule.accumulate": 2},
]


@pytest.mark.parametrize("overrides", CONFIGS, ids=str)
def test_a_training_reports_what_its_config_says_and_nothing_else(overrides: Mapping[str, Any]) -> None:
    config = tiny_config({**overrides, "thresholds.delta_u": 0.05, "schedule.steps": 12, "schedule.evaluate_every": 6})
    reports: list[Mapping[str, float]] = []
    train(config, LocalRun(device=torch.device("cpu"), listener=reports.append))
    reported, names = {name for report in reports for name in report}, metric_names([config])
    assert len(names) == len(set(names))
    assert reported <= set(names)
    by_class = tuple(f"/{name}" for name in config.data.classes)
    assert not [name for name in set(names) - reported if not name.endswith(by_class)]


def test_several_configs_may_report_what_only_one_between_them_does() -> None:
    configs = [tiny_config(SUPERVISED), tiny_config(LOGIT), tiny_config({**SUPERVISED, "css.label_strategy": "mix"})]
    between = tiny_config({"loss.lambda_c": 0.0, "css.label_strategy": "mix"})
    assert set(metric_names([between])) <= set(metric_names(configs))
