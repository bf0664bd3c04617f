"""Real street scenes, where CAMVID_ROOT says that they are."""

import os
from pathlib import Path

import pytest

from trainers.config import FolderData
from trainers.data.folder import list_pairs
from trainers.data.splits import open_splits, open_val
from trainers.presets import CAMVID_CLASSES, load_preset

pytestmark = pytest.mark.skipif("CAMVID_ROOT" not in os.environ, reason="needs CamVid in CAMVID_ROOT")


@pytest.fixture
def data() -> FolderData:
    return FolderData(
        root=Path(os.environ["CAMVID_ROOT"]), classes=CAMVID_CLASSES, ignore_values=(11,), height=180, width=240
    )


def test_camvid_has_the_published_numbers_of_images(data: FolderData) -> None:
    assert (len(list_pairs(data, "train")), len(list_pairs(data, "val"))) == (367, 101)
    assert [len(part) for part in open_splits(data)] == [40, 267, 60]


@pytest.mark.parametrize("seed", [0, 1])
def test_two_drives_are_labelled_and_the_third_is_that_of_the_validation_images(seed: int) -> None:
    data = load_preset("camvid_two_drives").data
    assert isinstance(data, FolderData)
    splits = open_splits(data.model_copy(update={"seed": seed}))
    assert [len(part) for part in splits] == [40, 267, 60]
    assert {name[:6] for name in splits.labelled.names} == {"0001TP", "0006R0"}
    assert {name[:6] for name in open_val(data).names} == {"0016E5"}
    labels = splits.labelled.fetch(range(40)).labels
    assert set(range(11)) <= set(labels.unique().tolist())


@pytest.mark.parametrize(("name", "trained"), [
    ("camvid_other_drive", {"0001TP", "0006R0"}), ("camvid_other_drives", {"0016E5"}),
])  # fmt: skip
def test_no_drive_that_is_scored_was_seen_in_training(name: str, trained: set[str]) -> None:
    data = load_preset(name).data
    assert isinstance(data, FolderData)
    splits = open_splits(data)
    assert {image[:6] for part in splits for image in part.names} == trained
    assert {image[:6] for image in open_val(data).names} == {"0001TP", "0006R0", "0016E5"} - trained
    assert (len(splits.labelled), len(splits.dev)) == (40, 30)
    assert len(splits.unlabelled) > 40


def test_camvid_reads_as_streets_under_skies(data: FolderData) -> None:
    images, labels, _ = open_val(data).fetch(range(0, 101, 10))
    assert (images.shape, labels.shape) == ((11, 3, 180, 240), (11, 180, 240))
    assert set(labels.unique().tolist()) <= {*range(11), 255}
    upper, lower = labels[:, :90], labels[:, 90:]
    assert (upper == 0).sum() > 10 * (lower == 0).sum()
    assert (lower == 3).sum() > 10 * (upper == 3).sum()
    brightness = images.float().mean(1)
    assert brightness[labels == 0].mean() > brightness[labels == 3].mean() + 40
