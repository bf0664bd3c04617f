"""Predictions of images of any size: what the network sees, and the size of what comes out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference.tiny import tiny_config

from trainers import predict
from trainers.css.pseudo_labels import upsample
from trainers.data.splits import open_splits
from trainers.evaluate import predictions
from trainers.figure import palette
from trainers.loader import to_images
from trainers.models.served import Segmenter
from trainers.overrides import apply_overrides
from trainers.predict import find_images, mask_image, predict_labels, upsampled_argmax, write_predictions
from trainers.presets import load_preset


def segmenter(overrides: dict[str, object] | None = None) -> Segmenter:
    torch.manual_seed(1)
    model = Segmenter(tiny_config(overrides))
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


WINDOWS = {"evaluation.mode": "sliding", "evaluation.window": [16, 16]}


@pytest.mark.parametrize("overrides", [{}, WINDOWS])
def test_a_stored_image_is_labelled_as_in_an_evaluation(overrides: dict[str, object]) -> None:
    model = segmenter(overrides)
    samples = open_splits(model.config.data).dev.fetch([0])
    with torch.no_grad():
        expected = next(predictions(model.network, to_images(samples.images, model.device), model.config))
    label = predict_labels(model, Image.fromarray(samples.images[0].permute(1, 2, 0).numpy()))
    np.testing.assert_array_equal(label, expected.numpy())


@pytest.mark.parametrize("overrides", [{}, WINDOWS])
@pytest.mark.parametrize("size", [(32, 32), (7, 5), (100, 41), (33, 90)])
def test_a_mask_has_the_size_of_its_image(overrides: dict[str, object], size: tuple[int, int]) -> None:
    assert predict_labels(segmenter(overrides), picture(*size)).shape == size[::-1]


def test_logits_are_brought_to_the_size_of_the_image_before_the_largest_is_taken() -> None:
    model, image = segmenter(), picture(80, 61)
    sized = image.resize((32, 32), Image.Resampling.BILINEAR)
    inputs = torch.from_numpy(np.array(sized)).permute(2, 0, 1).unsqueeze(0) / 255.0
    coarse = model.network(inputs).logits
    expected = torch.nn.functional.interpolate(coarse, (61, 80), mode="bilinear", align_corners=True).argmax(1)[0]
    np.testing.assert_array_equal(predict_labels(model, image), expected.numpy())


def test_without_one_stored_size_an_image_is_seen_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    settings_ = {"model.arch": "tiny", "evaluation.mode": "whole"}
    model = Segmenter(apply_overrides(load_preset("voc_css_92"), settings_))
    shapes: list[torch.Size] = []
    model.network.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    predict_labels(model, picture(50, 38))
    assert shapes == [(1, 3, 38, 50)]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_images_of_other_modes_are_taken_as_rgb(mode: str) -> None:
    model, image = segmenter(), picture(32, 32).convert(mode)
    np.testing.assert_array_equal(predict_labels(model, image), predict_labels(model, image.convert("RGB")))


@settings(max_examples=25)
@given(
    classes=st.integers(1, 9),
    room=st.integers(1, 5000),
    height=st.sampled_from([1, 2, 3, 5, 9, 17]),
    width=st.sampled_from([1, 2, 4, 7, 13]),
    levels=st.integers(1, 4),
)
def test_a_few_classes_at_a_time_give_the_argmax_of_all(
    classes: int, room: int, height: int, width: int, levels: int
) -> None:
    """Few levels make ties, of which the first class wins. Maps of 3 x 4 reach these sizes by weights of eighths.

    Such weights are exact; with others, one class at a time can be rounded differently from several at once.
    """
    logits = torch.randint(0, levels, (1, classes, 3, 4), generator=torch.Generator().manual_seed(room)).float()
    expected = upsample(logits, (height, width)).argmax(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "MAX_NUMBERS", room)
        assert torch.equal(upsampled_argmax(logits, (height, width)), expected)


def test_a_mask_holds_classes_and_shows_the_colours_of_the_figures(tmp_path: Path) -> None:
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    mask_image(label, 12).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), label)
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), palette(12)[label])


def test_files_are_written_whole_one_after_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(40, 30).save(tmp_path / f"{name}.png")
    files = find_images([tmp_path / "b.png", tmp_path / "a.png"])
    written = list(write_predictions(segmenter(), files, tmp_path / "out", overlays=True))
    assert written == [tmp_path / "out" / "b.png", tmp_path / "out" / "a.png"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [
        "a.png", "a.png", "b.png", "b.png", "overlays",
    ]  # fmt: skip


def test_of_a_folder_the_images_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images([tmp_path])] == ["a.png", "b.JPG"]


def test_a_mask_fits_its_image_turned_as_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright = picture(40, 30)
    upright.save(tmp_path / "upright.png")
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    files = [tmp_path / "upright.png", tmp_path / "turned.png"]
    first, second = (np.asarray(Image.open(path)) for path in write_predictions(segmenter(), files, tmp_path / "out"))
    assert second.shape == (30, 40)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("fit", "seen"), [("pad", (16, 32)), ("exact", (32, 32))])
def test_an_image_is_seen_in_the_shape_that_it_was_trained_in(fit: str, seen: tuple[int, int]) -> None:
    names = [f"class{at}" for at in range(11)]
    data = {"data.name": "folder", "data.root": ".", "data.classes": names, "data.height": 32, "data.width": 32}
    model = segmenter({**data, "data.fit": fit})
    shapes: list[torch.Size] = []
    model.network.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    assert predict_labels(model, picture(100, 50)).shape == (50, 100)
    assert shapes == [(1, 3, *seen)]
