"""The look at the validation images: of the teacher in the checkpoint, at the horizon."""

from pathlib import Path

import pytest
from harness.confirm.validate import val_scores

from trainers.config import TrainConfig
from trainers.data.splits import open_val
from trainers.errors import DataError
from trainers.evaluate import evaluate
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.overrides import apply_overrides
from trainers.presets import load_preset
from trainers.run import Decision


def small() -> TrainConfig:
    settings = {
        "data.labelled": 8,
        "data.unlabelled": 8,
        "data.dev": 4,
        "model.width": 8,
        "loss.queries": 16,
        "loss.negatives": 16,
        "schedule.steps": 2,
        "schedule.evaluate_every": 1,
    }
    return apply_overrides(load_preset("digits_css"), settings)


def test_the_scores_are_those_of_the_teacher_that_was_trained(tmp_path: Path) -> None:
    config, run = small(), LocalRun(tmp_path)
    state = train(config, run)
    expected = evaluate(state.teacher, open_val(config.data), config, run, "val")
    assert val_scores(config, tmp_path / "latest.pt") == expected
    assert "val/miou" in expected


def test_a_checkpoint_from_before_the_horizon_is_refused(tmp_path: Path) -> None:
    train(small(), LocalRun(tmp_path, listener=lambda metrics: Decision.STOP))
    with pytest.raises(DataError, match=r"a checkpoint of 2 steps must lie in .*, it has 1"):
        val_scores(small(), tmp_path / "latest.pt")


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    train(small(), LocalRun(tmp_path))
    with pytest.raises(DataError, match="a checkpoint must come from the same config"):
        val_scores(apply_overrides(small(), {"seed": 1}), tmp_path / "latest.pt")
