"""`s4 predict`: the masks that it writes, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trained_runs import TrainedRuns

from harness.cli.main import run
from harness.models.find import find_run
from trainers.predict import predict_labels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images of other sizes than the model's, and a file that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, (width, height) in {"one.png": (50, 41), "two.jpg": (33, 70)}.items():
        noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_masks_are_the_labels_of_the_model_at_the_size_of_each_image(
    trained: TrainedRuns, photos: Path, tmp_path: Path
) -> None:
    assert run(["predict", "first", str(photos), "--out", str(tmp_path / "out"), *trained.options()]) == 0
    segmenter = find_run("first", trained.storage, trained.uri).load()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]
    for file in (photos / "one.png", photos / "two.jpg"):
        with Image.open(tmp_path / "out" / f"{file.stem}.png") as mask, Image.open(file) as image:
            assert (mask.mode, mask.size) == ("P", image.size)
            np.testing.assert_array_equal(np.asarray(mask), predict_labels(segmenter, image))


def test_overlays_lie_apart_from_the_masks(trained: TrainedRuns, photos: Path, tmp_path: Path) -> None:
    words = ["predict", "first", str(photos / "one.png"), "--out", str(tmp_path / "out"), "--overlay"]
    assert run([*words, *trained.options()]) == 0
    with Image.open(tmp_path / "out" / "overlays" / "one.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (50, 41))


def refused(trained: TrainedRuns, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["predict", "first", *words, *trained.options()]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_file_that_is_no_image_is_refused_before_anything_is_written(
    trained: TrainedRuns, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (str(photos / "one.png"), str(photos / "notes.txt"), "--out", str(tmp_path / "out"))
    assert f"{photos / 'notes.txt'} must be an image that can be decoded" in refused(trained, capsys, *words)
    assert not (tmp_path / "out").exists()


def test_two_images_of_one_name_are_refused(
    trained: TrainedRuns, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(photos / "one.png").save(tmp_path / "one.bmp")
    words = (str(photos), str(tmp_path / "one.bmp"), "--out", str(tmp_path / "out"))
    assert "images must have names of their own" in refused(trained, capsys, *words)


@pytest.mark.parametrize("out", ["photos", "photos/../photos", "link"])
def test_the_folder_of_the_images_is_refused_as_output(
    out: str, trained: TrainedRuns, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(photos)
    before = (photos / "one.png").read_bytes()
    said = refused(trained, capsys, str(photos), "--out", str(tmp_path / out), "--overlay")
    assert "--out must be another folder than that of the images" in said
    assert (photos / "one.png").read_bytes() == before


def test_images_below_the_output_that_overlays_would_replace_are_refused(
    trained: TrainedRuns, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos.rename(tmp_path / "overlays")
    said = refused(trained, capsys, str(tmp_path / "overlays"), "--out", str(tmp_path))
    assert "--out must be another folder" in said


@pytest.mark.parametrize(
    ("image", "answer"), [("nothing.png", "an image must exist, got nothing.png"), (".", "must hold images")]
)
def test_nothing_to_predict_is_refused(
    image: str, answer: str, trained: TrainedRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer in refused(trained, capsys, image, "--out", "out")
