"""The paper's presets, from data on disk to a score: their settings as they are, on small trees and a small network."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official_trees import ade20k_tree, cityscapes_tree, coco_stuff_tree, sbd_tree, voc_tree

from trainers.data.splits import open_splits, open_val, verify
from trainers.evaluate import evaluate
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.overrides import apply_overrides
from trainers.presets import load_preset

pytestmark = [
    pytest.mark.filterwarnings("ignore:no training image that may be labelled holds"),
    pytest.mark.filterwarnings("ignore:thresholds.delta_s=.* excludes no pixel"),
]

SMALL: dict[str, Any] = {
    "data.labelled": 4,
    "data.dev": 2,
    "model.arch": "tiny",
    "model.width": 8,
    "model.representation_dim": 8,
    "model.backbone_weights": "none",
    "augment.weak.crop": (16, 16),
    "evaluation.window": (16, 16),
    "loss.queries": 16,
    "loss.negatives": 32,
    "schedule.steps": 3,
    "schedule.evaluate_every": 2,
    "schedule.labelled_batch": 2,
    "schedule.unlabelled_batch": 2,
    "thresholds.delta_w": 0.0,
}


def voc_with_sbd(root: Path) -> None:
    """VOC, and SBD in the same folder."""
    voc_tree(root)
    sbd_tree(root)


@pytest.mark.parametrize(
    ("preset", "tree", "images"),
    [
        ("voc_css_92", voc_with_sbd, 4),
        ("cityscapes_css_186", cityscapes_tree, 3),
        ("ade20k_css", ade20k_tree, 3),
        ("coco_stuff_css", coco_stuff_tree, 3),
    ],
)
def test_a_preset_of_the_paper_trains_on_its_official_layout_and_is_scored(
    preset: str, tree: Callable[[Path], None], images: int, tmp_path: Path
) -> None:
    tree(tmp_path)
    config = apply_overrides(load_preset(preset), {**SMALL, "data.root": str(tmp_path)})
    verify(config.data, needs_unlabelled=True)
    reports: list[dict[str, float]] = []
    run = LocalRun(device=torch.device("cpu"), listener=lambda metrics: reports.append(dict(metrics)))
    state = train(config, run)
    assert [report["step"] for report in reports] == [2.0, 3.0]
    assert all(math.isfinite(value) for report in reports for value in report.values())
    assert {f"train/loss/{name}" for name in ("supervised", "unsupervised", "contrast")} <= reports[-1].keys()
    assert reports[-1]["train/loss/supervised"] > 0
    assert 0 <= reports[-1]["dev/miou"] <= 1

    val = open_val(config.data)
    assert len(val) == images
    assert not set(val.names) & {name for part in open_splits(config.data) for name in part.names}
    assert 0 <= evaluate(state.teacher, val, config, run, "val")["val/miou"] <= 1
