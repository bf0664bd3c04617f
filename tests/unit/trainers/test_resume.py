"""A resumed run goes on as if nothing had happened, and nothing outside of a run's config changes it: bit by bit."""

import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny import differences, tiny_config
from reference.vits import DPT

from trainers.config import TrainConfig
from trainers.errors import DataError
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.run import Decision

Reports = list[dict[str, float]]


def run(config: TrainConfig, folder: Path | None = None, stop_at: int | None = None) -> tuple[dict[str, Any], Reports]:
    """Train; return the state at the end and what was reported, without times."""
    reports: Reports = []

    def listen(metrics: Any) -> Decision:
        reports.append({name: value for name, value in metrics.items() if not name.startswith("time/")})
        return Decision.STOP if metrics["step"] == stop_at else Decision.CONTINUE

    return train(config, LocalRun(folder=folder, listener=listen)).state_dict(), reports


@cache
def tiny_run() -> tuple[dict[str, Any], Reports]:
    """The run that several tests compare with."""
    return run(tiny_config())


LIGHT = {"model.arch": "light", "model.encoder": "mobilenetv3_small_050", "model.head_width": 16}
CASES: dict[str, Mapping[str, Any]] = {
    **METHODS,
    "logit": {"css.label_strategy": "logit"},
    "representation": {"css.label_strategy": "representation"},
    "mix": {"css.label_strategy": "mix"},
    "cross in its warm-up": {"css.label_strategy": "cross", "css.cross_warmup": 0.8},
    "cross, in steps": {"css.label_strategy": "cross", "css.cross_warmup": 14, "css.cross_warmup_unit": "steps"},
    "cross, in epochs of four steps": {
        "css.label_strategy": "cross",
        "css.cross_warmup": 3.5,
        "css.cross_warmup_unit": "epochs",
    },
    "weak labels": {"loss.lambda_w": 1.0, "css.veto": True},
    "prototypes of the student": {"ema.prototype_source": "student", "loss.unsupervised": "image_share"},
    "hard examples in two parts": {
        "loss.supervised": "ohem",
        "loss.ohem_min_kept": 100,
        "loss.class_weights": tuple(0.5 + 0.1 * at for at in range(11)),
        "schedule.accumulate": 2,
    },
    "AdamW": {"optimizer.kind": "adamw", "optimizer.lr": 0.003},
    "apart, down to a floor": {"schedule.joint_forward": False, "optimizer.min_lr": 0.01},
    "an encoder of timm, slower and with its statistics": {
        **LIGHT,
        "model.freeze": "norm",
        "optimizer.encoder_lr_factor": 0.1,
    },
    "an encoder of timm, frozen": {**LIGHT, "model.freeze": "all", "optimizer.kind": "adamw", "optimizer.lr": 0.003},
    "a ViT that skips blocks, layers with their own rates": {
        **DPT,
        "model.drop_path": 0.4,
        "model.checkpointing": True,
        "optimizer.layer_decay": 0.7,
        "schedule.accumulate": 2,
    },
    "an auxiliary head": {**METHODS["unimatch_v2"], "model.auxiliary": "inner", "loss.auxiliary_targets": "all"},
    "an indicator by a discriminator": {"css.indicator": "discriminator", "adversary.discriminator_width": 8},
    "in bfloat16": {"compute.precision": "bfloat16"},
}


LIKE_OTHERS = {"fixmatch", "unimatch", "unimatch_v2", "cps", "css_mix_released", "adversarial", "mix",
               "an encoder of timm, frozen"}  # fmt: skip
"""Cases whose parts others have, too; the long tests have them."""


@pytest.mark.filterwarnings("ignore:model.freeze")
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.long] if case in LIKE_OTHERS else []) for case in CASES]
)
def test_twelve_steps_saved_loaded_and_eight_more_are_twenty(case: str, tmp_path: Path) -> None:
    config = tiny_config(CASES[case])
    whole, reports = run(config)
    _, before = run(config, tmp_path, stop_at=12)
    resumed, after = run(config, tmp_path)
    assert differences(resumed, whole) == []
    assert before + after == reports


def test_every_part_of_a_step_acts_in_these_runs() -> None:
    # Otherwise the laws above would say less than they seem to.
    _, reports = tiny_run()
    last = reports[-1]
    assert last["train/loss/unsupervised"] > 0
    assert last["train/loss/contrast"] > 0
    assert 0 < last["train/share/unsupervised"] < 1
    assert 0 < last["train/share/hard"] < 1


def test_a_run_repeats_itself_bit_by_bit_whatever_was_drawn_in_between() -> None:
    first, _ = tiny_run()
    torch.manual_seed(12345)
    torch.rand(7)
    np.random.seed(5)  # noqa: NPY002 - the generator that other code may have seeded
    random.seed(3)
    run(tiny_config({"seed": 1, "data.seed": 1, "loss.queries": 32, "schedule.steps": 2}))
    again, _ = run(tiny_config())
    assert differences(first, again) == []


def test_training_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(99)  # not what an earlier run may have left
    before = torch.get_rng_state()
    run(tiny_config({"schedule.steps": 2}))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_trains_to_another_state() -> None:
    one, _ = run(tiny_config({"schedule.steps": 1}))
    other, _ = run(tiny_config({"schedule.steps": 1, "seed": 1}))
    assert "/student/heads.segment.1.weight" in differences(one, other)


def test_a_run_that_was_cut_off_before_its_last_report_makes_it_and_trains_no_more(tmp_path: Path) -> None:
    config = tiny_config({"schedule.steps": 4})
    whole, reports = run(config, tmp_path)
    again, late = run(config, tmp_path)
    assert differences(whole, again) == []
    scores = {name: value for name, value in reports[-1].items() if not name.startswith("train/")}
    assert late == [scores]


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    run(tiny_config({"schedule.steps": 1}), tmp_path)
    with pytest.raises(DataError, match="a checkpoint must come from the same config"):
        run(tiny_config({"schedule.steps": 1, "optimizer.lr": 0.05}), tmp_path)


def test_a_file_that_holds_no_training_state_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "latest.pt")
    with pytest.raises(DataError, match="a checkpoint must come from the same config"):
        run(tiny_config({"schedule.steps": 1}), tmp_path)


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    run(tiny_config({"schedule.steps": 1}), tmp_path)
    file = tmp_path / "latest.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"a checkpoint must be readable, got .*latest\.pt"):
        run(tiny_config({"schedule.steps": 1}), tmp_path)
