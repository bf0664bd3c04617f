"""This project's experiment: its look at the validation images, of the teacher in the checkpoint, at the horizon."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.experiment import CssExperiment
from trainers.data.splits import open_val
from trainers.errors import DataError
from trainers.evaluate import evaluate
from trainers.image_evaluation import load_image_evaluation
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.run import Decision

EXPERIMENT = CssExperiment.of(
    "digits_css",
    {
        "data.labelled": 8, "data.unlabelled": 8, "data.dev": 4, "data.val": 6, "model.width": 8, "loss.queries": 16,
        "loss.negatives": 16, "schedule.steps": 2, "schedule.evaluate_every": 1,
    },
)  # fmt: skip


def test_the_scores_are_those_of_the_teacher_that_was_trained(tmp_path: Path) -> None:
    config, run = EXPERIMENT.base, LocalRun(tmp_path)
    state = train(config, run)
    expected = evaluate(state.teacher, open_val(config.data), config, run, "val")
    scores = EXPERIMENT.evaluate({}, tmp_path)
    assert scores["val/miou"] == expected["val/miou"]
    assert scores.items() >= {name: value for name, value in expected.items() if name.startswith("val/iou/")}.items()
    assert scores.keys() <= {*EXPERIMENT.metric_names([{}], late=True)} - {*EXPERIMENT.metric_names([{}])}
    assert {file.name for file in tmp_path.iterdir()} >= {"dev.npz", "val.npz", "overlays.png", "confusion.png"}


def scenes(root: Path) -> Path:
    """A folder of noise like CamVid's: 30 training and 4 validation images of 11 classes."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 4)):
        for name, values in (("images", (256, 3)), ("masks", (11,))):
            (root / split / name).mkdir(parents=True)
            for at in range(count):
                pixels = draws.integers(0, values[0], (32, 48, *values[1:]), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"scene_{at:02d}.png")
    return root


def test_test_images_are_scored_beside_the_validation_images(tmp_path: Path) -> None:
    root = scenes(tmp_path / "data")
    (tmp_path / "test.txt").write_text("\n".join(f"scene_{at:02d}" for at in range(20, 30)))
    experiment = CssExperiment.of(
        "camvid_two_drives",
        {
            "data.root": str(root), "data.test": str(tmp_path / "test.txt"), "data.labelled_from": "*",
            "data.labelled": 4, "data.dev": 4, "data.height": 32, "data.width": 48, "augment.weak.crop": None,
            "model.width": 8, "loss.queries": 16, "loss.negatives": 16, "schedule.steps": 1,
        },
    )  # fmt: skip
    experiment.check_evaluation()
    train(experiment.base, LocalRun(tmp_path))
    scores = experiment.evaluate({}, tmp_path)
    assert scores["val/miou"] != scores["test/miou"]
    assert scores.keys() <= {*experiment.metric_names([{}], late=True)}
    assert len(load_image_evaluation(tmp_path / "test.npz").names) == 10


def test_a_checkpoint_from_before_the_horizon_is_refused(tmp_path: Path) -> None:
    train(EXPERIMENT.base, LocalRun(tmp_path, listener=lambda metrics: Decision.STOP))
    with pytest.raises(DataError, match=r"a checkpoint of 2 steps must lie in .*, it has 1"):
        EXPERIMENT.evaluate({}, tmp_path)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    train(EXPERIMENT.base, LocalRun(tmp_path))
    with pytest.raises(DataError, match="a checkpoint must come from the same config"):
        EXPERIMENT.evaluate({"seed": 1}, tmp_path)


def test_of_a_trainer_of_ones_own_no_metric_is_refused() -> None:
    class Other(CssExperiment):
        def train(self, overrides: Any, run: Any) -> str:
            return ""

    assert "dev/miou" in EXPERIMENT.metric_names([{}])
    assert not Other(EXPERIMENT.base).metric_names([{}])
