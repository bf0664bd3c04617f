"""The paper's four data sets, in small trees of their official layouts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from official_trees import (
    SBD_ONLY,
    VOC_TRAIN,
    VOC_VAL,
    ade20k_tree,
    cityscapes_tree,
    coco_stuff_tree,
    converted_sbd,
    sbd_mask,
    sbd_tree,
    values,
    voc_mask,
    voc_tree,
    write_mask,
)
from PIL import Image

from trainers.config import Ade20kData, CityscapesData, CocoStuffData, VocData
from trainers.config.data import PublishedData
from trainers.data.source import ImageSource
from trainers.data.splits import open_splits, open_val, verify
from trainers.errors import ConfigError, DataError
from trainers.overrides import apply_overrides
from trainers.presets import load_preset

pytestmark = pytest.mark.filterwarnings("ignore:no training image that may be labelled holds")

TREES: dict[type[Any], Callable[[Path], None]] = {
    VocData: voc_tree,
    CityscapesData: cityscapes_tree,
    Ade20kData: ade20k_tree,
    CocoStuffData: coco_stuff_tree,
}
every = pytest.mark.parametrize("kind", TREES)


def voc(root: Path, **changes: object) -> VocData:
    return VocData.model_validate({"root": root, "labelled": 4, "dev": 3} | changes)


def tree(kind: type[Any], root: Path) -> PublishedData:
    TREES[kind](root)
    more = {"augmented": False} if kind is VocData else {}
    data: PublishedData = kind(root=root, labelled=5, dev=2, **more)
    return data


def mask_of(source: ImageSource, name: str) -> NDArray[np.uint8]:
    """The labels of an image, without its padding."""
    _, labels, sizes = source.fetch([source.names.index(name)])
    height, width = sizes[0].tolist()
    return labels[0, :height, :width].numpy()


@every
def test_a_tree_in_the_official_layout_is_accepted_and_split_without_loss(kind: type[Any], tmp_path: Path) -> None:
    data = tree(kind, tmp_path)
    verify(data, needs_unlabelled=True)
    splits = open_splits(data)
    names = [name for part in splits for name in part.names]
    assert len(set(names)) == len(names)
    assert [len(splits.labelled), len(splits.dev)] == [5, 2]
    assert not set(names) & set(open_val(data).names)


@every
def test_every_label_is_a_class_or_255(kind: type[Any], tmp_path: Path) -> None:
    data = tree(kind, tmp_path)
    for source in (*open_splits(data), open_val(data)):
        labels = source.fetch(range(len(source))).labels.unique().tolist()
        assert set(labels) <= {*range(len(data.classes)), 255}


@every
def test_images_of_several_sizes_are_padded_to_the_largest(kind: type[Any], tmp_path: Path) -> None:
    source = open_val(tree(kind, tmp_path))
    images, labels, sizes = source.fetch(range(len(source)))
    assert len({tuple(size) for size in sizes.tolist()}) > 1
    assert images.shape[-2:] == labels.shape[-2:] == tuple(sizes.amax(0).tolist())
    for row, (height, width) in enumerate(sizes.tolist()):
        alone = source.fetch([row])
        assert torch.equal(images[row, :, :height, :width], alone.images[0])
        assert torch.equal(labels[row, :height, :width], alone.labels[0])
        assert not images[row, :, height:].any()
        assert not images[row, :, :, width:].any()
        assert (labels[row, height:] == 255).all()
        assert (labels[row, :, width:] == 255).all()


@every
def test_the_same_files_and_seed_give_the_same_splits(kind: type[Any], tmp_path: Path) -> None:
    data = tree(kind, tmp_path / "one")
    again = tree(kind, tmp_path / "two")
    assert open_splits(data).digest == open_splits(again).digest
    assert open_splits(again.model_copy(update={"seed": 5})).digest != open_splits(data).digest


@every
def test_an_empty_root_is_refused_with_all_that_is_missing(kind: type[Any], tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"must be complete in data\.root=.*, got it without .*; .*: correct data"
    ) as no:
        verify(kind(root=tmp_path))
    assert "\n" not in str(no.value)


@every
def test_a_crop_must_be_given_where_images_differ_in_size(kind: type[Any], tmp_path: Path) -> None:
    # Here, because it takes torch to load; the config alone may be valid without.
    from trainers.data.batches import check_batches

    preset = {VocData: "voc_css_92", CityscapesData: "cityscapes_css_186", Ade20kData: "ade20k_css"}
    config = load_preset(preset.get(kind, "coco_stuff_css"))
    check_batches(config, 1)
    with pytest.raises(ConfigError, match=r"augment\.weak\.crop must be a height and width for .*, got none: set it"):
        check_batches(apply_overrides(config, {"augment.weak.crop": None}), 1)


def test_voc_masks_are_the_indices_of_their_palettes(tmp_path: Path) -> None:
    voc_tree(tmp_path)
    assert np.array_equal(mask_of(open_val(voc(tmp_path, augmented=False)), VOC_VAL[1]), voc_mask(VOC_VAL[1]))


@pytest.mark.parametrize("converted", [False, True])
def test_sbd_adds_its_images_but_none_of_the_validation(tmp_path: Path, converted: bool) -> None:
    voc_tree(tmp_path)
    (converted_sbd if converted else sbd_tree)(tmp_path)
    splits = open_splits(voc(tmp_path))
    assert sorted(name for part in splits for name in part.names) == sorted([*VOC_TRAIN, *SBD_ONLY])


@pytest.mark.parametrize("converted", [False, True])
def test_an_image_with_two_masks_has_that_of_voc(tmp_path: Path, converted: bool) -> None:
    voc_tree(tmp_path)
    (converted_sbd if converted else sbd_tree)(tmp_path)
    splits = open_splits(voc(tmp_path, labelled=10))
    assert np.array_equal(mask_of(splits.labelled, VOC_TRAIN[0]), voc_mask(VOC_TRAIN[0]))
    added = splits.unlabelled.names[0]
    assert np.array_equal(mask_of(splits.unlabelled, added), sbd_mask(added))


def test_classic_labels_are_voc_own_and_dev_is_sbd_so_that_all_of_voc_may_be_labelled(tmp_path: Path) -> None:
    voc_tree(tmp_path / "voc")
    sbd_tree(tmp_path / "sbd")
    few, all_ = (open_splits(voc(tmp_path / "voc", sbd_root=tmp_path / "sbd", labelled=count)) for count in (4, 10))
    assert set(few.labelled.names) < set(VOC_TRAIN) == set(all_.labelled.names)
    assert set(few.dev.names) < set(SBD_ONLY)
    assert few.dev.names == all_.dev.names
    with pytest.raises(DataError, match=r"^data\.labelled=11 must be at most .* got 10 in"):
        open_splits(voc(tmp_path / "voc", sbd_root=tmp_path / "sbd", labelled=11))


def test_blender_labels_come_from_all_images(tmp_path: Path) -> None:
    voc_tree(tmp_path)
    sbd_tree(tmp_path)
    splits = open_splits(voc(tmp_path, labelled_from="augmented", labelled=18))
    assert set(splits.labelled.names) & set(SBD_ONLY)
    assert set(splits.labelled.names) & set(VOC_TRAIN)


def test_a_published_voc_list_is_read(tmp_path: Path) -> None:
    voc_tree(tmp_path)
    sbd_tree(tmp_path)
    lines = [f"JPEGImages/{name}.jpg SegmentationClass/{name}.png" for name in VOC_TRAIN[:3]]
    (tmp_path / "labeled.txt").write_text("\n".join(lines))
    assert open_splits(voc(tmp_path, labelled=tmp_path / "labeled.txt")).labelled.names == tuple(VOC_TRAIN[:3])


def test_a_published_cityscapes_list_is_read(tmp_path: Path) -> None:
    cityscapes_tree(tmp_path)
    stem = "train/aachen/aachen_000001_000019"
    (tmp_path / "l.txt").write_text(f"leftImg8bit/{stem}_leftImg8bit.png gtFine/{stem}_gtFine_labelTrainIds.png\n")
    data = CityscapesData(root=tmp_path, labelled=tmp_path / "l.txt", dev=2)
    assert open_splits(data).labelled.names == ("aachen_000001_000019",)


def test_an_image_of_the_validation_set_in_a_list_is_refused(tmp_path: Path) -> None:
    voc_tree(tmp_path)
    sbd_tree(tmp_path)
    (tmp_path / "labeled.txt").write_text(f"{VOC_TRAIN[0]}\n{VOC_VAL[0]}\n")
    with pytest.raises(DataError, match=rf"got 1 unknown, the first {VOC_VAL[0]}"):
        open_splits(voc(tmp_path, labelled=tmp_path / "labeled.txt"))


# Of the official table: id of road, building, sky, person, bicycle; then of ego vehicle, parking, caravan.
CITYSCAPES = {7: 0, 11: 2, 23: 10, 24: 11, 33: 18, 1: 255, 9: 255, 29: 255, 255: 255}


def test_cityscapes_ids_become_the_nineteen_training_classes(tmp_path: Path) -> None:
    cityscapes_tree(tmp_path)
    mask = np.resize(np.array(list(CITYSCAPES), np.uint8), (16, 20))
    name = "lindau_000000_000019"
    folder = tmp_path / "gtFine" / "val" / "lindau"
    image = tmp_path / "leftImg8bit" / "val" / "lindau" / f"{name}_leftImg8bit.png"
    Image.new("RGB", (20, 16)).save(image)
    write_mask(folder / f"{name}_gtFine_labelIds.png", mask)
    label = mask_of(open_val(CityscapesData(root=tmp_path)), name)
    assert np.array_equal(label, np.vectorize(CITYSCAPES.get)(mask))


def test_ade20k_has_its_classes_shifted_by_one(tmp_path: Path) -> None:
    ade20k_tree(tmp_path)
    label = mask_of(open_val(Ade20kData(root=tmp_path)), "ADE_val_00000002")
    assert np.array_equal(label, values(2, [0, 1, 2, 75, 150]) - np.uint8(1))  # 0 - 1 is 255


def test_coco_stuff_leaves_out_the_values_that_never_occur(tmp_path: Path) -> None:
    coco_stuff_tree(tmp_path)
    # 90 comes after 9 values that never occur, 92 after all 11 of them.
    expected = {0: 255, 1: 0, 11: 10, 13: 11, 90: 79, 92: 80, 182: 170}
    label = mask_of(open_val(CocoStuffData(root=tmp_path)), f"COCO_train2014_4{1:011d}")
    assert np.array_equal(label, np.vectorize(expected.get)(values(1, [0, 1, 11, 13, 90, 92, 182])))


def test_a_value_that_no_release_holds_is_named(tmp_path: Path) -> None:
    ade20k_tree(tmp_path)
    path = tmp_path / "annotations" / "validation" / "ADE_val_00000000.png"
    mask = values(0, [0, 1])
    mask[0, 0] = 151
    write_mask(path, mask)
    with pytest.raises(DataError, match=r"mask values must be those of the official release, got 151 in .*ADE_val"):
        open_val(Ade20kData(root=tmp_path)).fetch([0])


@pytest.mark.parametrize("broken", [b"", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_a_matlab_file_that_cannot_be_read_is_named(tmp_path: Path, broken: bytes) -> None:
    coco_stuff_tree(tmp_path)
    name = open_val(CocoStuffData(root=tmp_path)).names[0]
    (tmp_path / "annotations" / f"{name}.mat").write_bytes(broken)
    with pytest.raises(
        DataError, match=rf"{name}\.mat must be a MATLAB file with a mask S, got '.*': replace it"
    ) as no:
        open_val(CocoStuffData(root=tmp_path)).fetch([0])
    assert "\n" not in str(no.value)


def test_files_that_a_list_names_and_that_are_not_there_are_counted(tmp_path: Path) -> None:
    data = tree(CocoStuffData, tmp_path)
    gone = sorted((tmp_path / "annotations").glob("*.mat"))[:2]
    for path in gone:
        path.unlink()
    with pytest.raises(DataError, match=r"got it without 2 of 11 masks, the first .*\.mat: correct"):
        verify(data)


PUBLISHED = {
    "voc_css_92": (0.0064, (512, 512), 16, 40_000, 92),
    "voc_css_183": (0.0064, (512, 512), 16, 40_000, 183),
    "voc_css_366": (0.0064, (512, 512), 16, 40_000, 366),
    "voc_css_732": (0.0064, (512, 512), 16, 40_000, 732),
    "voc_css_1464": (0.0064, (512, 512), 16, 40_000, 1464),
    "cityscapes_css_186": (0.0038, (768, 768), 8, 80_000, 186),
    "ade20k_css": (0.0064, (512, 512), 16, 80_000, 20_210 // 8),
    "coco_stuff_css": (0.0064, (512, 512), 16, 40_000, 9000 // 8),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.filterwarnings("error")
def test_presets_have_the_published_settings(name: str) -> None:
    config = load_preset(name)
    schedule = config.schedule
    batch = schedule.labelled_batch + schedule.unlabelled_batch
    labelled = getattr(config.data, "labelled", 0)
    assert (config.optimizer.lr, config.augment.weak.crop, batch, schedule.steps, labelled) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_in_no_preset_every_valid_pixel_is_hard(name: str) -> None:
    config = load_preset(name)
    assert config.delta_w_probability < config.delta_s_probability < config.largest("similarity")


def test_roots_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOC_ROOT", "/data/voc")
    monkeypatch.setenv("SBD_ROOT", "/data/sbd")
    data = load_preset("voc_css_92").data
    assert isinstance(data, VocData)
    assert (data.root, data.sbd_root) == (Path("/data/voc"), Path("/data/sbd"))
