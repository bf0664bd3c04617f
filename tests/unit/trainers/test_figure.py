"""The picture of predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference.tiny import tiny_config

from trainers.compute import forward
from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import pseudo_labels
from trainers.data.splits import open_splits
from trainers.figure import ANCHORS, colormap, draw_predictions, overlay, palette
from trainers.loader import to_images
from trainers.local_run import LocalRun
from trainers.state import TrainState


@pytest.mark.parametrize(("count", "height"), [(1, 26 + 166), (3, 26 + 3 * 166), (99, 26 + 8 * 166)])
def test_a_picture_has_a_row_an_image_and_eight_columns(count: int, height: int, tmp_path: Path) -> None:
    config = tiny_config()  # 8 dev images of 32 px, drawn five times as large with 6 px between them
    path = tmp_path / "new" / "predictions.png"
    draw_predictions(TrainState(config, LocalRun()), open_splits(config.data).dev, config, path, count)
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (6 + 8 * 166, height))


def test_truth_and_image_are_shown_as_they_are(tmp_path: Path) -> None:
    config = tiny_config()
    source = open_splits(config.data).dev
    draw_predictions(TrainState(config, LocalRun()), source, config, tmp_path / "predictions.png", count=1)
    images, masks, _ = source.fetch([0])
    with Image.open(tmp_path / "predictions.png") as picture:
        shown = [picture.getpixel((6 + column * 166 + 5 * 20 + 2, 26 + 5 * 9 + 2)) for column in (0, 1)]
    assert shown == [
        tuple(images[0, :, 9, 20].tolist()),
        tuple(palette(config.num_classes)[masks[0, 9, 20].item()].tolist()),
    ]


def test_before_any_prototype_exists_mixed_labels_are_drawn_as_ignored(tmp_path: Path) -> None:
    config = tiny_config()
    state = TrainState(config, LocalRun())
    state.prototypes = Prototypes.empty(config.num_classes, config.model.representation_dim)
    draw_predictions(state, open_splits(config.data).dev, config, tmp_path / "predictions.png", count=1)
    with Image.open(tmp_path / "predictions.png") as picture:
        mix = picture.crop((6 + 5 * 166, 26, 6 + 5 * 166 + 160, 26 + 160))
    assert mix.getcolors() == [(160 * 160, tuple(palette(config.num_classes)[255].tolist()))]


@pytest.mark.parametrize("num_classes", [2, 11, 21, 150])
def test_every_class_has_a_colour_that_is_not_that_of_ignored_pixels(num_classes: int) -> None:
    colours = torch.from_numpy(palette(num_classes)[:num_classes]).long()
    ignored = torch.from_numpy(palette(num_classes)[255]).long()
    assert (colours != ignored).any(dim=1).all()


def test_the_colours_of_21_classes_differ() -> None:
    assert len({tuple(colour) for colour in palette(21)[:21].tolist()}) == 21


def test_the_confidence_map_shows_the_confidence_of_the_teacher(tmp_path: Path) -> None:
    config = tiny_config()
    state, source = TrainState(config, LocalRun()), open_splits(config.data).dev
    draw_predictions(state, source, config, tmp_path / "predictions.png", count=1)
    inputs = to_images(source.fetch([0]).images, torch.device("cpu"))
    with torch.no_grad():
        pseudo = pseudo_labels(forward(state.teacher, inputs, config), state.prototypes, 0.01, (32, 32))
    end = next(end for end in (0.1, 0.2, 0.5, 1.0) if pseudo.confidence.max() <= end)
    with Image.open(tmp_path / "predictions.png") as picture:
        shown = picture.getpixel((6 + 6 * 166 + 5 * 20 + 2, 26 + 5 * 9 + 2))
    assert shown == tuple(colormap(pseudo.confidence[0, 9, 20].numpy() / end).tolist())


def test_before_any_prototype_exists_the_similarity_is_drawn_as_zero(tmp_path: Path) -> None:
    config = tiny_config()
    state = TrainState(config, LocalRun())
    state.prototypes = Prototypes.empty(config.num_classes, config.model.representation_dim)
    draw_predictions(state, open_splits(config.data).dev, config, tmp_path / "predictions.png", count=1)
    with Image.open(tmp_path / "predictions.png") as picture:
        similarity = picture.crop((6 + 7 * 166, 26, 6 + 7 * 166 + 160, 26 + 160))
    assert similarity.getcolors() == [(160 * 160, ANCHORS[0])]


def test_runs_on_the_same_splits_show_the_same_images(tmp_path: Path) -> None:
    for name, config in (("one", tiny_config()), ("other", tiny_config({"seed": 9, "optimizer.lr": 0.01}))):
        draw_predictions(TrainState(config, LocalRun()), open_splits(config.data).dev, config, tmp_path / name)
    with Image.open(tmp_path / "one") as one, Image.open(tmp_path / "other") as other:
        shared = (0, 0, 6 + 2 * 166, one.height)  # image and truth
        assert one.crop(shared).tobytes() == other.crop(shared).tobytes()
        assert one.tobytes() != other.tobytes()


def test_the_anchors_of_the_scale_are_matplotlibs_viridis() -> None:
    import matplotlib

    theirs = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(ANCHORS)))[:, :3] * 255
    assert np.abs(colormap(np.linspace(0, 1, len(ANCHORS))) - theirs).max() <= 2  # of a table of 256 colours


def test_larger_values_are_lighter() -> None:
    lightness = colormap(np.linspace(0, 1, 101)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(lightness) > 0).all()


def test_values_outside_of_the_scale_are_clipped() -> None:
    assert colormap(np.array([-1.0, 2.0])).tolist() == [list(ANCHORS[0]), list(ANCHORS[-1])]


def test_an_overlay_leaves_ignored_pixels_as_they_were_and_colours_the_others() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    label = np.array([[255, 1], [0, 1]], np.uint8)
    blended = overlay(image, label, 3, strength=0.5)
    mixed = (50 + 0.5 * palette(3)[label].astype(float)).round()
    assert blended[0, 0].tolist() == [100, 100, 100]
    np.testing.assert_array_equal(blended[1], mixed[1])
    assert blended.dtype == np.uint8
