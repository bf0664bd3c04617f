"""Class weights that are counted: from which pixels, by which rule, and under which hash."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.tiny import tiny_config

from trainers import loop
from trainers.class_weights import balanced_weights, with_counted_weights
from trainers.config import TrainConfig
from trainers.cost import step_cost
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.local_run import LocalRun
from trainers.overrides import apply_overrides

AUTO = {"loss.class_weights": "auto"}


def folder(root: Path) -> TrainConfig:
    """Return a config of three labelled images, 1 of 16 pixels road and a half ignored, and of others all road."""
    for at in range(6):
        labels = np.zeros((16, 16), np.uint8)
        labels[:8], labels[8:10, :8] = 255, 1
        for kind, values in (("images", np.full((16, 16, 3), 40 * at, np.uint8)), ("masks", labels)):
            (root / "train" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values if at < 3 or kind == "images" else np.ones_like(labels)).save(
                root / "train" / kind / f"n{at}.png"
            )
    for role, names in {"labelled": (0, 1, 2), "dev": (3,)}.items():
        (root / f"{role}.txt").write_text("".join(f"n{at}\n" for at in names))
    data = {
        "name": "folder", "root": str(root), "classes": ["other", "road", "sign"], "height": 16, "width": 16,
        "labelled": root / "labelled.txt", "dev": root / "dev.txt",
    }  # fmt: skip
    return tiny_config({f"data.{name}": value for name, value in data.items()} | AUTO)


def test_weights_are_the_square_root_of_the_median_by_each_class() -> None:
    weights = balanced_weights(np.array([400, 100, 25, 0]))
    assert weights == pytest.approx((0.5, 1.0, 2.0, 1.0))
    assert balanced_weights(np.zeros(2, np.int64)) == (1.0, 1.0)


def test_only_labelled_masks_count(tmp_path: Path) -> None:
    config = folder(tmp_path)
    counted = with_counted_weights(config).loss.class_weights
    median = np.median([112, 16])  # sign is in no mask; dev and unlabelled images, all road, do not count
    assert counted == pytest.approx((np.sqrt(median / 112), np.sqrt(median / 16), 1.0))


def test_scenes_are_counted_too() -> None:
    config = tiny_config(AUTO)
    labels = open_splits(config.data).labelled.fetch(range(config.data.labelled)).labels
    pixels = torch.bincount(labels.flatten(), minlength=11).numpy()
    assert with_counted_weights(config).loss.class_weights == pytest.approx(balanced_weights(pixels))


def test_other_configs_stay_as_they_are() -> None:
    config = tiny_config({"loss.class_weights": tuple(range(1, 12))})
    assert with_counted_weights(config) is config


def losses(overrides: dict[str, object]) -> tuple[list[float], str]:
    reported: list[float] = []

    def listen(metrics: Any) -> None:
        reported.append(metrics["train/loss/supervised"])

    state = loop.train(
        tiny_config({"schedule.steps": 2, "schedule.evaluate_every": 1, **overrides}), LocalRun(listener=listen)
    )
    return reported, state.state_dict()["config_hash"]


def test_training_with_counted_weights_is_training_with_their_numbers() -> None:
    numbers = with_counted_weights(tiny_config(AUTO)).loss.class_weights
    counted, counted_hash = losses(AUTO)
    given, given_hash = losses({"loss.class_weights": numbers})
    assert counted == given != losses({})[0]
    assert counted_hash == tiny_config({"schedule.steps": 2, "schedule.evaluate_every": 1, **AUTO}).hash != given_hash


def test_the_cost_of_a_step_needs_no_data() -> None:
    nowhere = {
        "data.name": "folder",
        "data.root": "nowhere",
        "data.classes": ["a", "b"],
        "data.height": 32,
        "data.width": 32,
    }
    assert step_cost(tiny_config({**nowhere, **AUTO}), 1).flops.total > 0


def test_words_other_than_auto_are_refused() -> None:
    with pytest.raises(ConfigError, match="class_weights"):
        apply_overrides(TrainConfig(), {"loss.class_weights": "balanced"})
