"""`s4 data check`: what there is, what is missing, and where to get it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cli.main import run
from trainers.figure import palette


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("VOC_ROOT", "SBD_ROOT", "CITYSCAPES_ROOT", "ADE20K_ROOT", "COCO_STUFF_ROOT", "CAMVID_ROOT"):
        monkeypatch.delenv(name, raising=False)


def ade20k(root: Path) -> None:
    """Five training images and one to validate, of two sizes."""
    for part, count in (("training", 5), ("validation", 1)):
        for at in range(count):
            for kind, suffix, value in (("images", "jpg", 100), ("annotations", "png", 1 + at)):
                path = root / kind / part / f"{part}{at}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((16 + at, 20), value, np.uint8)).save(path)


ADE = ["data", "check", "ade20k_css", "--set", "data.labelled=2", "--set", "data.dev=1"]


def test_digits_are_complete_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["labelled", "80", "images"] in lines
    assert ["complete", "yes"] in lines


@pytest.mark.parametrize(
    ("preset", "paths", "home"),
    [
        ("voc_css_92", ["JPEGImages", "SegmentationClass", "train.txt", "dataset/cls"], "host.robots.ox.ac.uk"),
        ("cityscapes_css_186", ["leftImg8bit/train", "gtFine/val"], "cityscapes-dataset.com"),
        ("ade20k_css", ["images/training", "annotations/validation"], "sceneparsing.csail.mit.edu"),
        ("coco_stuff_css", ["images", "annotations", "imageLists/test.txt"], "github.com/nightrome/cocostuff10k"),
        ("camvid_css", ["data.root must be a folder"], "your own images"),
    ],
)
def test_all_that_is_missing_is_named_with_where_to_get_it(
    preset: str, paths: list[str], home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", preset]) == 2
    captured = capsys.readouterr()
    missing = [line for line in captured.out.splitlines() if line.startswith("missing: ")]
    assert [path for path in paths if not any(path in line for line in missing)] == []
    assert home in captured.out
    assert captured.err == ""


def test_the_root_that_was_set_is_the_one_that_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    run(["data", "check", "voc_css_92", "--set", "data.root=elsewhere"])
    assert "missing: elsewhere/VOCdevkit/VOC2012/JPEGImages (folder)" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:no training image")
def test_a_complete_data_set_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ade20k(tmp_path / "ade")
    # Five classes in five images: two cannot hold them all, and one is held back.
    assert run([*ADE[:3], "--set", "data.labelled=4", "--set", "data.dev=1", "--set", "data.root=ade", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["complete"] is True
    assert found["images"] == {"labelled": 4, "unlabelled": 0, "dev": 1, "val": 1}
    assert found["sizes"] == [[16, 20], [20, 20]]
    assert found["classes"] == 150
    assert len(found["digest"]) == 12


@pytest.mark.filterwarnings("ignore:no training image")
def test_numbers_that_do_not_fit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ade20k(tmp_path / "ade")
    assert run([*ADE, "--set", "data.root=ade"]) == 2
    assert "missing: data.labelled must be enough images to hold each class once, got 2" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:no training image")
@pytest.mark.parametrize(("words", "code"), [([], 0), (["--decode"], 2)])
def test_a_broken_mask_is_found_where_all_are_decoded(
    words: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ade20k(tmp_path / "ade")
    path = tmp_path / "ade" / "annotations" / "validation" / "validation0.png"
    path.write_bytes(b"not an image")
    four = ["--set", "data.labelled=4", "--set", "data.dev=1", "--set", "data.root=ade"]
    assert run(["data", "check", "ade20k_css", *four, *words]) == code
    assert ("validation0.png must be an image that can be decoded" in capsys.readouterr().out) == (code == 2)


def test_an_unknown_preset_is_answered_with_a_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "voc_css_93"]) == 2
    assert "got 'voc_css_93': did you mean voc_css_92?" in capsys.readouterr().err


def folder(root: Path, values: tuple[int, int] = (0, 1), masks: int = 4) -> list[str]:
    """Write four training images, a quarter of each mask being of the second value; return the words of the command."""
    for at in range(4):
        for kind, picture in (("images", np.full((16, 24), 60 * at)), ("masks", np.full((16, 24), values[0]))):
            path = root / "train" / kind / f"n{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture[:8, :12] = values[1] if kind == "masks" else 200
            if kind == "images" or at < masks:
                Image.fromarray(picture.astype(np.uint8)).save(path)
    fields = {"root": root, "classes": "[other, road]", "height": 16, "width": 24, "labelled": 1, "dev": 1}
    settings = [word for name, value in fields.items() for word in ("--set", f"data.{name}={value}")]
    return ["data", "check", "camvid_css", "--set", "data.ignore_values=[255]", *settings]


def table(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_what_masks_hold_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder(tmp_path / "d", masks=3)) == 0
    shown = table(capsys)
    assert ["training", "masks", "3", "of", "4", "images"] in shown
    assert ["validation", "masks", "none"] in shown
    assert ["unlabelled", "2", "images"] in shown
    assert shown[-2:] == [["other", "75.0%", "0"], ["road", "25.0%", "1"]]


def test_a_class_that_no_mask_holds_is_missing_with_the_setting_that_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = folder(tmp_path / "d", values=(0, 255))
    assert run(words) == 2
    shown = capsys.readouterr().out
    assert "(ignored)   25.0%  255 (no loss, no score)" in shown
    assert "road         0.0%  in no training mask" in shown
    assert "got none with road, found 0 other, 255 (ignored): set data.values={0: other, 255: road}" in shown
    assert run([*words, "--set", "data.values={0: other, 255: road}"]) == 0
    assert table(capsys)[-2:] == [["other", "75.0%", "0"], ["road", "25.0%", "255"]]


def test_all_values_that_mean_nothing_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*folder(tmp_path / "d", values=(10, 20)), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["content"][-1] == {"name": "(unknown)", "values": [10, 20], "pixels": 4 * 16 * 24, "share": 1.0}
    assert found["missing"][0].endswith("set data.values={10: other, 20: road}")


def test_colours_stand_where_masks_are_read_by_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = folder(tmp_path / "d", values=(0, 90))
    for path in (tmp_path / "d/train/masks").iterdir():
        Image.open(path).convert("RGB").save(path)
    assert run([*words, "--set", "data.palette={other: [0, 0, 0], road: [90, 90, 90]}"]) == 0
    assert table(capsys)[-2:] == [
        ["other", "75.0%", "[0,", "0,", "0]"], ["road", "25.0%", "[90,", "90,", "90]"],
    ]  # fmt: skip


def test_an_image_of_another_aspect_ratio_is_found_without_decoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = folder(tmp_path / "d")
    Image.new("RGB", (24, 24)).save(tmp_path / "d/train/images/more.png")
    assert run(words) == 2
    assert "aspect ratio of data.height x data.width (16 x 24), got 24 x 24 in" in capsys.readouterr().out
    assert run([*words, "--set", "data.fit=pad"]) == 0
    assert "16 x 24 to 24 x 24, read as 16 x 24 (pad)" in capsys.readouterr().out


def test_overlays_show_the_classes_of_four_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*folder(tmp_path / "d"), "--overlays", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overlays"] == [str(tmp_path / f"out/n{at}.png") for at in range(4)]
    drawn = np.asarray(Image.open(tmp_path / "out/n0.png")).astype(int)
    scale = (drawn.shape[1] - 18) // 2 // 24
    left, right = drawn[6:, 6 : 6 + 24 * scale], drawn[6:, 12 + 24 * scale :]
    assert left[0, 0].tolist() == [200, 200, 200]
    assert left[9 * scale, 13 * scale].tolist() == [0, 0, 0]
    mixed = [round(0.45 * 200 + 0.55 * channel) for channel in palette(2)[1].tolist()]
    assert np.abs(right[0, 0] - mixed).max() <= 1
    assert len(np.unique(right[: 16 * scale, : 24 * scale].reshape(-1, 3), axis=0)) == 2


def test_overlays_of_digits_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "--overlays", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize("place", ["d/train/images", "d", "file"])
def test_overlays_replace_no_image(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = folder(tmp_path / "d")
    (tmp_path / "file").touch()
    before = (tmp_path / "d/train/images/n0.png").read_bytes()
    assert run([*words, "--overlays", str(tmp_path / place)]) == 2
    assert "--overlays must " in capsys.readouterr().err
    assert (tmp_path / "d/train/images/n0.png").read_bytes() == before
