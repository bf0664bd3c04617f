"""Weak maps of a folder: found, checked, and trained with."""

from pathlib import Path

import numpy as np
import pytest
from own_folders import SIZE, folder, labels_of
from PIL import Image

from harness.experiment import CssExperiment
from trainers.__main__ import main
from trainers.config import DigitsData, FolderData, VocData
from trainers.data.splits import open_splits
from trainers.data.weak import open_weak, verify_weak, weak_path
from trainers.errors import DataError

GROUPS = {"flat": ["b"], "other": ["a", "c"]}
OF_CLASS = np.array([1, 0, 1, *[255] * 253], np.uint8)


def data_of(root: Path) -> FolderData:
    return FolderData(
        root=root, classes=("a", "b", "c"), height=SIZE[0], width=SIZE[1], labelled=2, dev=1, weak_groups=GROUPS
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of six training images, all with masks and right weak maps."""
    folder(tmp_path, count=6)
    (tmp_path / "train" / "weak").mkdir()
    for at in range(6):
        Image.fromarray(OF_CLASS[labels_of(at)]).save(tmp_path / "train" / "weak" / f"n{at}.png")
    return tmp_path


def test_weak_maps_stand_in_for_the_labels_of_the_unlabelled_images(root: Path) -> None:
    data = data_of(root)
    unlabelled, weak = open_splits(data).unlabelled, open_weak(data)
    assert weak.names == unlabelled.names
    truth, groups = (source.fetch(range(3)) for source in (unlabelled, weak))
    assert groups.images.equal(truth.images)
    np.testing.assert_array_equal(groups.labels.numpy(), OF_CLASS[truth.labels.numpy()])


def test_weak_maps_of_digits_are_their_groups() -> None:
    data = DigitsData(image_size=32, labelled=4, unlabelled=4, dev=4)
    truth, weak = (source.fetch([2, 0]).labels for source in (open_splits(data).unlabelled, open_weak(data)))
    assert weak.equal((truth > 0).byte())


@pytest.mark.parametrize(("change", "message"), [
    (lambda path: path.unlink(), r"every unlabelled image must have a weak map, got 1 of 3 without, the first .*png"),
    (lambda path: Image.fromarray(np.full(SIZE, 2, np.uint8)).save(path),
     r"mask values must be groups of data.weak_groups \(0 to 1\) or 255 in weak maps, got 2 in .*png"),
    (lambda path: Image.fromarray(np.zeros((4, 4), np.uint8)).save(path), r"must have the size of its image"),
    (lambda path: Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path), r"must be one byte a pixel"),
    (lambda path: path.write_bytes(b"no image"), r"must be an image that can be decoded"),
])  # fmt: skip
def test_a_map_that_lacks_or_breaks_a_rule_is_named_before_training(
    root: Path, change: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_of(root)
    verify_weak(data)
    change(root / "train" / "weak" / f"{open_splits(data).unlabelled.names[1]}.png")  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        verify_weak(data)
    assert trained(root) == 2
    error = capsys.readouterr().err
    assert (len(error.splitlines()), error[:7]) == (1, "error: ")


def settings_of(root: Path) -> dict[str, object]:
    return {
        "data.root": str(root), "data.classes": ["a", "b", "c"], "data.height": SIZE[0], "data.width": SIZE[1],
        "data.labelled": 2, "data.dev": 1, "data.weak_groups": GROUPS, "schedule.labelled_batch": 2,
        "schedule.unlabelled_batch": 2, "model.arch": "tiny", "augment.weak.crop": None,
    }  # fmt: skip


@pytest.mark.parametrize(("others", "message"), [
    ({"loss.lambda_w": 1.0}, "every unlabelled image must have a weak map, got 1 of 3 without"),
    ({"data.labelled": 5}, "unlabelled images must remain beside data.labelled=5 and data.dev=1, got none"),
])  # fmt: skip
def test_what_a_search_would_turn_on_is_checked_before_it_begins(
    root: Path, others: dict[str, float], message: str
) -> None:
    experiment = CssExperiment.of("camvid_css", settings_of(root))
    tried = [{"loss.lambda_u": 0.5}, others]
    if "data.labelled" not in others:
        experiment.check_data(tried)
        (root / "train" / "weak" / f"{open_splits(experiment.base.data).unlabelled.names[1]}.png").unlink()
    experiment.check(1)
    with pytest.raises(DataError, match=message):
        experiment.check_data(tried)


def test_a_method_that_reads_unlabelled_images_needs_some_where_the_base_reads_none(root: Path) -> None:
    supervised = CssExperiment.of("camvid_css", {**settings_of(root), "data.labelled": 5}, method="supervised")
    supervised.check(1)
    with pytest.raises(DataError, match="unlabelled images must remain"):
        supervised.check_data([{"method": "cutmix", "loss.lambda_u": 1.0}])


def test_data_without_weak_maps_say_so() -> None:
    pair = object()
    with pytest.raises(DataError, match="weak maps must be of data of a folder or of cityscapes, got voc"):
        weak_path(VocData(root=Path()), pair)  # type: ignore[arg-type]


def trained(root: Path, *settings: str) -> int:
    """The exit code of a training of two steps with both uses of weak labels."""
    groups = "{flat: [b], other: [a, c]}"
    sets = (
        f"data.root={root}", "data.classes=a,b,c", f"data.height={SIZE[0]}", f"data.width={SIZE[1]}",
        "data.labelled=2", "data.dev=1", f"data.weak_groups={groups}", "loss.lambda_w=1", "css.veto=true",
        "schedule.steps=2", "schedule.evaluate_every=1", "schedule.labelled_batch=2", "schedule.unlabelled_batch=2",
        "model.arch=tiny", "model.width=8", "loss.queries=16", *settings,
    )  # fmt: skip
    return main(["camvid_css", *(word for setting in sets for word in ("--set", setting))])


def test_a_folder_is_trained_with_its_weak_maps(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained(root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["step", "1"], ["step", "2"]]
