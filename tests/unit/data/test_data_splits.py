"""Labelled, unlabelled and dev: disjoint, complete, drawn by the seed or listed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.config import DigitsData, FolderData
from trainers.data.splits import open_splits, open_test, open_val, verify, write_splits
from trainers.errors import DataError

NAMES = [f"scene_{index:02d}" for index in range(30)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("folder")
    for part, names in (("train", NAMES), ("val", ["v"])):
        for folder in ("images", "masks"):
            (base / part / folder).mkdir(parents=True)
            for name in names:
                Image.fromarray(np.eye(16, dtype=np.uint8)).save(base / part / folder / f"{name}.png")
    return base


def config(root: Path, **changes: object) -> FolderData:
    fields: dict[str, object] = {"root": root, "classes": ("a", "b"), "height": 16, "width": 16}
    return FolderData.model_validate(fields | {"labelled": 5, "dev": 8} | changes)


def write(path: Path, names: list[str]) -> Path:
    path.write_text("\n".join(names) + "\n")
    return path


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_are_disjoint_and_complete(root: Path, seed: int) -> None:
    splits = open_splits(config(root, seed=seed))
    names = [name for part in splits for name in part.names]
    assert sorted(names) == NAMES
    assert [len(part) for part in splits] == [5, 17, 8]


@pytest.mark.parametrize("seed", range(3))
def test_labelled_images_can_be_drawn_from_some_names_alone(root: Path, seed: int) -> None:
    everywhere, some = (open_splits(config(root, seed=seed, labelled_from=names)) for names in ("*", "scene_1*"))
    assert {name[:7] for name in some.labelled.names} == {"scene_1"}
    assert (len(some.labelled), len(some.unlabelled)) == (5, 17)
    assert some.dev.names == everywhere.dev.names
    assert everywhere.digest == open_splits(config(root, seed=seed)).digest


def test_images_that_the_patterns_leave_out_are_in_no_part(root: Path) -> None:
    data = config(root, train_from="scene_1*", labelled=2, dev=3)
    splits = open_splits(data)
    names = [name for part in splits for name in part.names]
    assert sorted(names) == [name for name in NAMES if name.startswith("scene_1")]
    scored = data.model_copy(update={"val": "train", "val_from": "scene_2*"})
    assert {name[:7] for name in open_val(scored).names} == {"scene_2"}


@pytest.mark.parametrize("field", ["train_from", "val_from"])
def test_patterns_that_leave_nothing_are_refused(root: Path, field: str) -> None:
    with pytest.raises(DataError, match=rf"data.{field} must match names of images, 'drive_\*' matches none of"):
        verify(config(root, **{field: "drive_*"}))


def test_names_that_no_labelled_image_can_have_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"data.labelled_from must match .* 'drive_\*' matches none of 30"):
        open_splits(config(root, labelled_from="drive_*"))
    with pytest.raises(DataError, match=r"data.labelled=10 must be at most .* got \d that are not held back for dev"):
        open_splits(config(root, labelled_from="scene_1*", labelled=10))


def test_more_labelled_images_include_the_fewer_and_leave_dev_alone(root: Path) -> None:
    few, many = open_splits(config(root, labelled=5)), open_splits(config(root, labelled=12))
    assert set(few.labelled.names) < set(many.labelled.names)
    assert few.dev.names == many.dev.names


def test_the_seed_draws_the_parts(root: Path) -> None:
    assert open_splits(config(root)).dev.names != open_splits(config(root, seed=1)).dev.names


def test_lists_are_taken_as_they_are_and_numbers_from_the_rest(root: Path, tmp_path: Path) -> None:
    labelled = write(tmp_path / "labelled.txt", [NAMES[4], NAMES[2]])
    splits = open_splits(config(root, labelled=labelled, dev=28))
    assert splits.labelled.names == (NAMES[2], NAMES[4])
    assert set(splits.dev.names) == set(NAMES) - {NAMES[2], NAMES[4]}
    dev = write(tmp_path / "dev.txt", NAMES[10:12])
    splits = open_splits(config(root, labelled=labelled, dev=dev))
    assert splits.dev.names == tuple(NAMES[10:12])
    assert len(splits.unlabelled) == 26


def test_images_of_a_test_take_part_in_nothing_else(root: Path, tmp_path: Path) -> None:
    test = write(tmp_path / "test.txt", NAMES[20:])
    drawn = [open_splits(config(root, test=test, seed=seed)) for seed in range(3)]
    for splits in drawn:
        assert {name for source in splits for name in source.names} == set(NAMES[:20])
    assert open_test(config(root, test=test)).names == tuple(NAMES[20:])
    assert config(root, test=test).late_splits == ("val", "test")
    assert drawn[0].digest != open_splits(config(root)).digest


def test_a_test_that_is_not_there_or_shares_images_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.test must be a list of names \(a file\) to have test images"):
        open_test(config(root))
    both = config(root, test=write(tmp_path / "a.txt", NAMES[:3]), dev=write(tmp_path / "b.txt", NAMES[2:5]))
    with pytest.raises(DataError, match=r"data.test and data.dev must share no image, got scene_02 in both lists"):
        open_splits(both)
    with pytest.raises(DataError, match=r"data.test must be a text file of names, got "):
        open_test(config(root, test=tmp_path / "none.txt"))
    unknown = write(tmp_path / "c.txt", ["scene_99"])
    for use in (open_splits, open_test, verify):
        with pytest.raises(DataError, match=r"data.test must list names .* the first scene_99"):
            use(config(root, test=unknown))


def test_the_digest_tells_who_is_in_which_part(root: Path, tmp_path: Path) -> None:
    one, other = (write(tmp_path / f"{at}.txt", [NAMES[at]]) for at in (0, 1))
    digests = [
        open_splits(config(root, labelled=labelled, dev=dev)).digest for labelled, dev in ((one, other), (other, one))
    ]
    assert digests[0] != digests[1]
    again = write(tmp_path / "again.txt", [NAMES[0]])
    assert open_splits(config(root, labelled=again, dev=other)).digest == digests[0]
    assert len(digests[0]) == 12
    assert int(digests[0], 16) >= 0


def test_lists_that_were_written_give_the_same_splits_again(root: Path, tmp_path: Path) -> None:
    drawn = open_splits(config(root))
    write_splits(drawn, tmp_path / "run" / "splits")
    lists = {role: tmp_path / "run" / "splits" / f"{role}.txt" for role in ("labelled", "dev")}
    given = open_splits(config(root, seed=5, **lists))
    assert [part.names for part in given] == [part.names for part in drawn]
    assert (tmp_path / "run" / "splits" / "digest.txt").read_text() == f"{given.digest}\n"
    unlabelled = (tmp_path / "run" / "splits" / "unlabelled.txt").read_text().splitlines()
    assert tuple(unlabelled) == drawn.unlabelled.names


def test_splits_are_written_over_older_ones_and_leave_no_drafts(root: Path, tmp_path: Path) -> None:
    write_splits(open_splits(config(root)), tmp_path)
    write_splits(open_splits(config(root, seed=1)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dev.txt", "digest.txt", "labelled.txt", "unlabelled.txt"
    ]  # fmt: skip
    assert tuple((tmp_path / "dev.txt").read_text().splitlines()) == open_splits(config(root, seed=1)).dev.names


def test_a_list_may_hold_paths_of_images_and_masks(root: Path, tmp_path: Path) -> None:
    lines = [f"train/images/{name}.png train/masks/{name}.png" for name in NAMES[:3]]
    splits = open_splits(config(root, labelled=write(tmp_path / "labelled.txt", lines)))
    assert splits.labelled.names == tuple(NAMES[:3])


def test_a_drawn_image_makes_room_for_a_class_that_only_one_other_holds(root: Path, tmp_path: Path) -> None:
    base = tmp_path / "folder"
    shutil.copytree(root, base)
    drawn = open_splits(config(base))
    rare = drawn.unlabelled.names[0]
    Image.fromarray(np.full((16, 16), 2, np.uint8)).save(base / "train" / "masks" / f"{rare}.png")
    covering = open_splits(config(base, classes=("a", "b", "c")))
    assert covering.dev.names == drawn.dev.names
    assert rare in covering.labelled.names
    assert len(set(covering.labelled.names) & set(drawn.labelled.names)) == len(drawn.labelled) - 1


def test_the_digest_of_digits_changes_with_seed_and_numbers() -> None:
    configs = (DigitsData(), DigitsData(seed=1), DigitsData(labelled=41))
    assert len({open_splits(data).digest for data in configs}) == 3


def test_an_equal_config_finds_the_data_open() -> None:
    assert open_splits(DigitsData(seed=3)) is open_splits(DigitsData(seed=3))


def test_digits_have_nothing_to_check_and_a_validation_split() -> None:
    verify(DigitsData(), needs_unlabelled=True)
    assert len(open_val(DigitsData(val=7))) == 7


def test_more_images_than_there_are_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.dev=8 \+ data\.labelled=23 must be at most .* got 30 in .*: ask"):
        open_splits(config(root, labelled=23))


def test_all_labelled_is_allowed_unless_unlabelled_images_are_needed(root: Path) -> None:
    data = config(root, labelled=22)
    verify(data)
    with pytest.raises(DataError, match=r"unlabelled images must remain beside data\.labelled=22 and data\.dev=8"):
        verify(data, needs_unlabelled=True)


def test_an_unknown_name_in_a_list_is_named(root: Path, tmp_path: Path) -> None:
    listed = write(tmp_path / "dev.txt", [NAMES[0], "scene_00.png", "nobody"])
    with pytest.raises(DataError, match=r"data\.dev must list names .* got 2 unknown, the first scene_00\.png, in"):
        open_splits(config(root, dev=listed))


def test_a_name_in_both_lists_is_named(root: Path, tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.txt", NAMES[:3]), write(tmp_path / "b.txt", NAMES[2:5])
    with pytest.raises(DataError, match=r"share no image, got scene_02 in both lists \(1 in all\)"):
        open_splits(config(root, labelled=one, dev=other))


def test_a_name_listed_twice_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.labelled must list a name once, got scene_01 again"):
        open_splits(config(root, labelled=write(tmp_path / "a.txt", [NAMES[1], NAMES[1]])))


def test_a_list_that_is_missing_or_empty_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.labelled must be a number or a text file of names, got .*none\.txt"):
        open_splits(config(root, labelled=tmp_path / "none.txt"))
    with pytest.raises(DataError, match=r"data\.labelled must list at least one name, got none in .*empty\.txt"):
        open_splits(config(root, labelled=write(tmp_path / "empty.txt", [""])))
