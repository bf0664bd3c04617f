"""Snapshots of the representation space: which pixels, what is kept, what is drawn; training stays the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from reference.tiny import tiny_config

from harness.run_folder import REPRESENTATIONS
from trainers.checkpoint import load_checkpoint
from trainers.compute import forward
from trainers.config import TrainConfig
from trainers.css.prototypes import Prototypes
from trainers.data.splits import open_splits
from trainers.figure import draw_checkpoint, draw_representations, principal_axes
from trainers.loader import to_images
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import method_settings
from trainers.overrides import apply_overrides
from trainers.snapshots import KEPT, Snapshot, add_snapshot, take_snapshot
from trainers.state import TrainState


def taken(config: TrainConfig, step: int = 0) -> Snapshot:
    state = TrainState(config, LocalRun())
    seen = torch.ones(config.num_classes, dtype=torch.bool)
    values = torch.randn(
        config.num_classes, config.model.representation_dim, generator=torch.Generator().manual_seed(1)
    )
    return take_snapshot(state.teacher, Prototypes(values, seen), open_splits(config.data).dev, config, step)


def made_up(step: int, pixels: torch.Tensor | None = None) -> Snapshot:
    pixels = torch.eye(3, 5).half() if pixels is None else pixels
    return Snapshot(step, pixels, torch.arange(len(pixels)), torch.eye(3, pixels.shape[1]).half())


def test_of_each_class_there_are_as_many_pixels_as_asked_for_or_all() -> None:
    few, many = (
        taken(apply_overrides(tiny_config(), {"evaluation.representation_pixels": 2})),
        taken(apply_overrides(tiny_config(), {"evaluation.representation_pixels": 100_000})),
    )
    there = torch.bincount(many.labels)
    assert torch.equal(torch.bincount(few.labels), there.clamp(max=2))


def test_pixels_are_unit_directions_of_the_teacher_at_the_size_of_its_maps() -> None:
    config = apply_overrides(tiny_config(), {"evaluation.representation_pixels": 100_000})
    snapshot, state = taken(config), TrainState(config, LocalRun())
    images, masks, _ = open_splits(config.data).dev.fetch(range(8))
    maps = forward(state.teacher, to_images(images, torch.device("cpu")), config).representations
    small = F.interpolate(masks[:, None].float(), size=maps.shape[-2:], mode="nearest").flatten().long()
    expected = F.normalize(maps, dim=1).permute(0, 2, 3, 1).flatten(0, 2)[small == 0]
    torch.testing.assert_close(snapshot.pixels[snapshot.labels == 0].float(), expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(
        snapshot.prototypes.float().norm(dim=1), torch.ones(config.num_classes), atol=2e-3, rtol=0
    )


def test_of_more_reports_than_are_kept_those_kept_are_spread_over_the_training() -> None:
    kept: list[Snapshot] = []
    for step in range(10, 1010, 10):
        kept = add_snapshot(kept, made_up(step))
    steps = [snapshot.step for snapshot in kept]
    assert (len(steps), steps[0], steps[-1]) == (KEPT, 10, 1000)
    assert max(np.diff(steps)) <= 4 * 1000 / KEPT


def test_a_report_that_is_made_again_replaces_its_snapshot() -> None:
    kept = [made_up(10), made_up(20)]
    assert [each.step for each in add_snapshot(kept, made_up(20))] == [10, 20]


def test_the_axes_are_those_of_the_covariance() -> None:
    rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 1, 1, 0.5, 0.1])
    mean, axes, shares = principal_axes(rows)
    values, vectors = np.linalg.eigh(np.cov(rows.numpy().T))
    np.testing.assert_allclose(mean, rows.numpy().mean(0), rtol=1e-4)
    np.testing.assert_allclose(np.abs(axes.numpy()), np.abs(vectors[:, [-1, -2]]), atol=1e-3)
    np.testing.assert_allclose(shares, values[[-1, -2]] / values.sum(), rtol=1e-3)


def test_training_is_bitwise_the_same_without_snapshots_and_they_outlive_a_checkpoint(tmp_path: Path) -> None:
    config = apply_overrides(tiny_config(), {"schedule.steps": 4, "schedule.evaluate_every": 2})
    with_them = train(config, LocalRun(folder=tmp_path))
    without = train(apply_overrides(config, {"evaluation.representation_pixels": 0}), LocalRun())
    assert [snapshot.step for snapshot in with_them.snapshots] == [2, 4]
    assert not without.snapshots
    for name, value in with_them.student.state_dict().items():
        assert torch.equal(value, without.student.state_dict()[name]), name
    again = TrainState(config, LocalRun())
    again.load_state_dict(load_checkpoint(tmp_path / "latest.pt"))
    assert torch.equal(again.snapshots[1].pixels, with_them.snapshots[1].pixels)


def test_a_state_of_before_there_were_snapshots_can_be_loaded() -> None:
    state = TrainState(tiny_config(), LocalRun())
    written = state.state_dict()
    del written["snapshots"]
    state.load_state_dict(written)
    assert state.snapshots == []


@pytest.mark.parametrize("reports", [1, 2, 5, 12])
def test_a_picture_is_drawn_of_any_number_of_reports(reports: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    snapshots = [made_up(step, torch.randn(3, 5, generator=generator).half()) for step in range(1, reports + 1)]
    draw_representations(snapshots, ["road", "car", "sky"], tmp_path / "space.png")
    with Image.open(tmp_path / "space.png") as picture:
        assert len(picture.convert("RGB").getcolors(10**6) or []) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["space.png"]


def test_a_space_in_which_all_pixels_are_one_point_can_be_drawn(tmp_path: Path) -> None:
    draw_representations([made_up(1, torch.ones(3, 5).half())], ["road", "car", "sky"], tmp_path / "space.png")
    assert (tmp_path / "space.png").exists()


@pytest.mark.parametrize(("method", "drawn"), [("css_mix", True), ("cutmix", False)])
def test_the_picture_lies_beside_the_predictions_of_methods_with_prototypes(
    method: str, drawn: bool, tmp_path: Path
) -> None:
    config = apply_overrides(
        tiny_config(), {"schedule.steps": 2, "schedule.evaluate_every": 2, **method_settings(method)}
    )
    train(config, LocalRun(folder=tmp_path))
    draw_checkpoint(config, tmp_path / "latest.pt", tmp_path / "predictions.png")
    assert (tmp_path / REPRESENTATIONS).exists() == drawn
