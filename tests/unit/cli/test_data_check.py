"""`s4 data check`: what there is, what is missing, and where to get it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cli.main import run


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
