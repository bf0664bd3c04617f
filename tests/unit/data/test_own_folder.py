"""`s4 init`: a folder is looked at, and the file that it writes is accepted and reads what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_folders import CODING_NAMES, CODINGS, SIZE, TABLE, config, folder, image_of, labels_of, read, rewrite
from PIL import Image

from harness.cli.main import run
from harness.experiment import CssExperiment
from trainers.config import FolderData
from trainers.data.splits import open_splits, verify
from trainers.data.survey import LONGEST_SIDE, propose_shape, survey_folder

IN_ORDER = {"values": "ignore,a,c,b"}
"""Names of what the masks of a coding hold, ascending; of the others `a,b,c,ignore`."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return folder(tmp_path / "mine")


def accepted(*words: str) -> FolderData:
    """Return the data of the file that `s4 init` wrote, which `s4 data check` and a training accept."""
    assert run(["init", str(Path("mine").resolve()), *words]) == 0
    assert run(["data", "check", "mine.yaml", "--decode"]) == 0
    data = CssExperiment.of("mine.yaml").base.data
    assert isinstance(data, FolderData)
    verify(data, needs_unlabelled=True)
    return data


def names_in(data: FolderData) -> list[list[str]]:
    """Return the names of the classes of all pixels of all training images, "" for none."""
    table = np.array([*data.classes, *[""] * (256 - len(data.classes))])
    return [table[labels.ravel()].tolist() for labels in read(data)[1].numpy()]


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    before = {*Path().rglob("*")}
    assert run(["init", "mine", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ", got " in said
    assert {*Path().rglob("*")} == before
    return said


@pytest.mark.parametrize(("name", "coding"), [*zip(CODING_NAMES, CODINGS, strict=True)], ids=CODING_NAMES)
def test_masks_of_any_coding_read_like_indices(root: Path, name: str, coding: tuple[Any, Any]) -> None:
    plain = names_in(config(root))
    for part in ("train", "val"):
        rewrite(root, coding[0], part)
    assert names_in(accepted("--classes", IN_ORDER.get(name, "a,b,c,ignore"))) == plain


def test_indices_need_no_names(root: Path) -> None:
    data = accepted()
    assert (data.classes, data.values, data.palette) == (("class_0", "class_1", "class_2"), None, None)
    assert np.array_equal(read(data)[1], read(config(root))[1])


def test_zero_and_255_are_two_classes(root: Path) -> None:
    for part in ("train", "val"):
        rewrite(root, lambda m, at: Image.fromarray(np.where(m == 1, 255, 0).astype(np.uint8)), part)
    data = accepted()
    assert data.values == ((0, "class_0"), (255, "class_255"))
    expected = np.stack([labels_of(at) == 1 for at in range(4)]).astype(np.uint8)
    assert np.array_equal(read(data)[1], expected)


def test_masks_of_one_bit_are_two_classes(root: Path) -> None:
    for part in ("train", "val"):
        rewrite(root, lambda m, at: Image.fromarray(m == 2).convert("1"), part)
    data = accepted()
    assert (data.classes, data.values) == (("class_0", "class_1"), None)


def test_several_values_may_be_one_class(root: Path) -> None:
    data = accepted("--classes", "other,road,other")
    assert (data.classes, data.values) == (
        ("other", "road"),
        ((0, "other"), (1, "road"), (2, "other"), (255, "ignore")),
    )


@pytest.mark.parametrize("pattern", ["{stem}_mask.png", "mask-{stem}.png", "{stem}.jpg.tif", "gt {stem} #1.png"])
def test_masks_named_after_their_images_are_found(root: Path, pattern: str) -> None:
    plain = read(config(root))[1]
    for path in [*(root / "train/masks").iterdir(), *(root / "val/masks").iterdir()]:
        Image.open(path).save(path.with_name(pattern.replace("{stem}", path.stem)))
        path.unlink()
    data = accepted()
    assert data.mask_pattern == pattern
    assert np.array_equal(read(data)[1], plain)


def test_names_that_begin_alike_are_told_apart(root: Path) -> None:
    for part in ("images", "masks"):
        for at, number in enumerate((1, 11, 111, 21)):
            name = f"{number}_1.png" if part == "masks" else f"{number}.png"
            (root / "train" / part / f"n{at}.png").rename(root / "train" / part / name)
    (root / "val").rename(root / "elsewhere")
    assert accepted().mask_pattern == "{stem}_1.png"


def test_images_without_masks_are_unlabelled_and_all_masks_are_used(root: Path) -> None:
    for at in range(4, 12):
        image_of(at).save(root / f"train/images/n{at}.png")
    splits = open_splits(accepted())
    assert [len(part) for part in splits] == [3, 8, 1]


def test_where_all_have_masks_some_count_as_unlabelled(root: Path) -> None:
    splits = open_splits(accepted())
    assert [len(part) for part in splits] == [2, 1, 1]


@pytest.mark.filterwarnings("ignore:no training image")
def test_few_masks_are_split_such_that_each_class_is_labelled(root: Path) -> None:
    for at in range(4):  # one class each, but for the last two, which hold the same
        Image.fromarray(np.full(SIZE, min(at, 2), np.uint8)).save(root / f"train/masks/n{at}.png")
    image_of(4).save(root / "train/images/n4.png")
    labelled = open_splits(accepted()).labelled
    labels = labelled.fetch(range(len(labelled))).labels
    assert {*labels.unique().tolist()} == {0, 1, 2}


def test_a_folder_without_train_or_val_is_read(root: Path) -> None:
    (root / "val").rename(root / "elsewhere")
    for part in ("images", "masks"):
        (root / "train" / part).rename(root / part)
    data = accepted()
    assert (data.train, len(open_splits(data).labelled)) == (".", 2)


@pytest.mark.filterwarnings("ignore:no training image")
def test_a_class_of_validation_masks_alone_is_allowed(root: Path) -> None:
    rewrite(root, lambda m, at: Image.fromarray(np.where(m == 2, 0, m).astype(np.uint8)))
    data = accepted()
    assert (data.allow_missing, len(data.classes)) == (True, 3)


@pytest.mark.parametrize(
    ("size", "fit"),
    [((480, 640), "exact"), ((18, 27), "exact"), ((1080, 1920), "exact"), ((16, 16), "exact"), ((333, 500), "exact"),
     ((7, 9), "pad"), ((2000, 31), "pad")],
)  # fmt: skip
def test_the_shape_keeps_the_aspect_ratio_within_bounds(size: tuple[int, int], fit: str) -> None:
    (height, width), proposed = propose_shape([(size, 5)])
    assert height % 4 == width % 4 == 0
    assert 16 <= min(height, width) <= max(height, width) <= max(16, min(LONGEST_SIDE, max(size) + 3))
    assert proposed == fit
    assert (abs(np.log(height / width * size[1] / size[0])) <= 0.05) == (fit == "exact")


def test_other_aspect_ratios_are_padded(root: Path) -> None:
    for part in ("images", "masks"):
        path = root / f"train/{part}/n3.png"
        Image.open(path).rotate(90, expand=True).save(path)
    data = accepted()
    assert (data.fit, data.height, data.width) == ("pad", 16, 24)


def test_of_many_masks_some_are_read_and_that_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainers.data.survey.FEWEST_MASKS", 2)
    monkeypatch.setattr("trainers.data.survey.MOST_MASKS", 2)
    assert run(["init", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["read"] == 2
    assert "# 2 of 8 masks, evenly spaced, were read" in Path("mine.yaml").read_text()


def test_a_file_that_is_there_is_not_replaced_without_being_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text("mine")
    assert "--out must be a new file, got mine.yaml" in refusal(capsys)
    assert Path("mine.yaml").read_text() == "mine"
    accepted("--force")


def test_names_that_yaml_would_read_as_something_else_stay_names(root: Path) -> None:
    assert accepted("--classes", "no,1e3,a: b #c").classes == ("no", "1e3", "a: b #c")


def test_the_last_lines_of_the_file_make_the_bundled_network_of_it(root: Path) -> None:
    data = accepted()
    text = Path("mine.yaml").read_text()
    Path("mine.yaml").write_text(text.replace("# model:", "model:").replace("# optimizer", "optimizer"))
    base, bundled = CssExperiment.of("mine.yaml").base, CssExperiment.of("camvid_lite0").base
    assert base.data == data
    assert base.optimizer == bundled.optimizer
    assert base.model == bundled.model.model_copy(update={"backbone": base.model.backbone, "width": base.model.width})


def test_the_file_and_json_say_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "mine", "--out", "other.yml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    base = CssExperiment.of("folder_css", found["settings"]).base
    assert (found["file"], found["masks"], [part["key"] for part in found["found"]]) == ("other.yml", 4, [0, 1, 2, 255])
    assert base == CssExperiment.of("other.yml").base
    assert base.data == survey_folder(Path("mine")).data


def blur(root: Path) -> None:
    rewrite(root, lambda m, at: Image.fromarray(np.arange(m.size, dtype=np.uint8).reshape(m.shape) // 3 * 3))


def photos(root: Path) -> None:
    rewrite(root, lambda m, at: image_of(at))


def remove_masks(root: Path) -> None:
    for at in range(3):
        (root / f"train/masks/n{at}.png").unlink()


def jpeg(root: Path) -> None:
    for path in (root / "train/masks").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


def other_names(root: Path) -> None:
    for path in (root / "train/masks").iterdir():
        path.rename(path.with_name(f"x{path.stem[1:]}.png"))


def other_size(root: Path) -> None:
    Image.new("L", (8, 8)).save(root / "train/masks/n2.png")


def one_class(root: Path) -> None:
    for part in ("train", "val"):
        rewrite(root, lambda m, at: Image.new("L", SIZE[::-1]), part)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (blur, "masks must hold one value a class, got "),
        (photos, "masks must hold one colour a class, got more than 255 in "),
        (remove_masks, "two of them with masks, got 4 and 1 in "),
        (jpeg, "masks must be saved without loss, got n0.jpg"),
        (other_names, "masks must be named after their images, got x0.png"),
        (other_size, "a mask must have the size of its image (24 x 16), got 8 x 8 in "),
        (one_class, "masks must hold two classes at least, got 0 alone"),
        (lambda root: (root / "val/masks/n1.png").unlink(), "every validation image must have a mask"),
        (lambda root: (root / "train/masks/n1.png").write_bytes(b"-"), "n1.png must be an image"),
        (lambda root: [path.unlink() for path in (root / "train/images").iterdir()], "images must hold images (.jpg"),
        (lambda root: (root / "train").rename(root / "data"), "must hold train/images and train/masks, got none"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_in_one_line(
    root: Path, spoil: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(root)
    assert reason in refusal(capsys)


@pytest.mark.parametrize("names", ["a,b", "a,a,a", "a,,b"])
def test_names_that_do_not_fit_are_refused(root: Path, names: str, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "val"):
        rewrite(root, lambda m, at: Image.fromarray(TABLE[m]), part)
    refusal(capsys, "--classes", names)
