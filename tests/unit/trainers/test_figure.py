"""The picture of predictions."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from reference.tiny import tiny_config

from trainers.css.prototypes import Prototypes
from trainers.data.splits import open_splits
from trainers.figure import draw_predictions, palette
from trainers.local_run import LocalRun
from trainers.state import TrainState


@pytest.mark.parametrize(("count", "height"), [(1, 26 + 166), (3, 26 + 3 * 166), (99, 26 + 8 * 166)])
def test_a_picture_has_a_row_an_image_and_six_columns(count: int, height: int, tmp_path: Path) -> None:
    config = tiny_config()  # 8 dev images of 32 px, drawn five times as large with 6 px between them
    path = tmp_path / "new" / "predictions.png"
    draw_predictions(TrainState(config, LocalRun()), open_splits(config.data).dev, config, path, count)
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (6 + 6 * 166, height))


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
