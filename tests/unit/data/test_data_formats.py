"""Folders as people have them: formats of masks and images, names, orientations and aspect ratios."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_folders import (
    CLASSES,
    CODING_NAMES,
    CODINGS,
    COLOURS,
    SIZE,
    TABLE,
    Mask,
    config,
    folder,
    labels_of,
    paletted,
    read,
    rewrite,
    shuffled,
)
from PIL import Image
from pydantic import ValidationError
from reference.tiny import tiny_config

from trainers.config import FolderData, TrainConfig
from trainers.data.folder import FolderReader
from trainers.data.splits import open_splits, open_val, verify
from trainers.errors import DataError
from trainers.image_evaluation import folder_source
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.overrides import apply_overrides, parse_settings


def refusal(data: FolderData) -> str:
    with pytest.raises(DataError) as caught:
        verify(data)
    assert "\n" not in str(caught.value)
    assert ", got " in str(caught.value)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder(tmp_path)


@pytest.mark.parametrize(("save", "changes"), CODINGS, ids=CODING_NAMES)
def test_masks_of_any_coding_read_like_indices(root: Path, save: Any, changes: dict[str, object]) -> None:
    plain = read(config(root))
    for part in ("train", "val"):
        rewrite(root, save, part)
    verify(config(root, **changes))
    assert all(torch.equal(one, other) for one, other in zip(read(config(root, **changes)), plain, strict=True))


def test_masks_of_one_bit_hold_two_classes(root: Path) -> None:
    rewrite(root, lambda m, at: Image.fromarray(m == 2).convert("1"))
    _, labels = read(config(root, classes=("other", "c")))
    assert torch.equal(labels[3], torch.from_numpy((labels_of(3) == 2).astype(np.uint8)))


def test_colours_without_a_palette_are_refused_with_the_way_on(root: Path) -> None:
    rewrite(root, lambda m, at: Image.fromarray(TABLE[m]))
    message = refusal(config(root))
    assert "got mode RGB with [0, 0, 0], [70, 130, 180], [128, 128, 128], [224, 224, 192] in" in message
    assert message.endswith(".png: set data.palette={NAME: [R, G, B], ...}")


def test_a_colour_that_no_class_has_is_named_with_its_file(root: Path) -> None:
    rewrite(root, lambda m, at: Image.fromarray(TABLE[m]))
    picture = TABLE[labels_of(2)]
    picture[3, 4] = 70, 130, 181
    Image.fromarray(picture).save(root / "train/masks/n2.png")
    assert "data.palette, got [70, 130, 181] in " + str(root / "train/masks/n2.png") in refusal(
        config(root, palette=COLOURS)
    )


def test_palettes_that_differ_from_file_to_file_are_refused(root: Path) -> None:
    rewrite(root, lambda m, at: shuffled(m, at))
    everything = config(root, ignore_values=tuple(range(3, 256)))
    message = refusal(everything)
    assert message.startswith("palettes of masks must agree for indices to be classes, got [")
    assert message.endswith(": set data.palette={NAME: [R, G, B], ...}")


def test_one_colour_at_another_index_is_refused(root: Path) -> None:
    table = TABLE.copy()
    table[[1, 2]] = TABLE[[2, 1]]
    rewrite(root, lambda m, at: paletted(np.where(m == 2, 0, m).astype(np.uint8), TABLE))
    paletted(np.full(SIZE, 2, np.uint8), table).save(root / "train/masks/n0.png")
    assert "palettes of masks must agree" in refusal(config(root))


def test_a_palette_of_greys_that_are_not_its_indices_is_refused(root: Path) -> None:
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None] * np.uint8(20), 3, axis=1)
    rewrite(root, lambda m, at: paletted(m, table))
    assert "got grey 20 for index 1 in" in refusal(config(root))


def test_a_palette_of_greys_that_are_its_indices_is_read(root: Path) -> None:
    plain = read(config(root))
    rewrite(root, lambda m, at: paletted(m, np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)))
    assert torch.equal(read(config(root))[1], plain[1])


def test_unused_entries_of_palettes_may_differ(root: Path) -> None:
    plain = read(config(root))

    def save(mask: Mask, at: int) -> Image.Image:
        table = TABLE.copy()
        table[100] = at, 2, 3
        return paletted(mask, table)

    rewrite(root, save)
    assert torch.equal(read(config(root))[1], plain[1])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_masks_are_refused(root: Path, mode: str) -> None:
    picture = Image.fromarray(labels_of(1)).convert(mode)
    picture.putalpha(Image.new("L", SIZE[::-1], 254))
    picture.save(root / "train/masks/n1.png")
    assert "a mask must be opaque, got transparent pixels in" in refusal(config(root))


def test_a_class_that_no_mask_holds_is_refused_with_the_values_found(root: Path) -> None:
    for part in ("train", "val"):
        rewrite(root, lambda m, at: Image.fromarray(np.where(np.isin(m, [1, 2]), 255, 0).astype(np.uint8)), part)
    two = config(root, classes=("other", "road"))
    with pytest.warns(UserWarning, match="holds road"):
        message = refusal(two)
    assert "got none with road, found 0 other, 255 (ignored): set data.values={0: other, 255: road}, or," in message
    assert message.endswith("if that is right, data.allow_missing=true")
    verify(config(root, classes=("other", "road"), values={0: "other", 255: "road"}))
    with pytest.warns(UserWarning, match="holds road"):
        verify(two.model_copy(update={"allow_missing": True}))


def test_a_class_of_dev_alone_is_held(root: Path) -> None:
    rewrite(root, lambda m, at: Image.fromarray(np.where(m == 2, 0, m).astype(np.uint8)))
    with pytest.warns(UserWarning, match="holds c"):
        dev = open_splits(config(root)).dev.names[0]
    Image.fromarray(labels_of(0)).save(root / "train/masks" / f"{dev}.png")
    with pytest.warns(UserWarning, match="holds c"):
        verify(config(root))


def test_a_mask_that_belongs_to_no_image_is_refused_with_a_pattern(root: Path) -> None:
    for path in [*(root / "train/masks").iterdir(), *(root / "val/masks").iterdir()]:
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    (root / "train/masks/notes.txt").write_text("not a mask")
    message = refusal(config(root))
    assert "got 4 in" in message
    assert "such as n0_mask.png, n1_mask.png, n2_mask.png: " in message
    assert message.endswith('or set for example data.mask_pattern="{stem}_mask.png"')
    verify(apply_overrides(config(root), {"mask_pattern": parse_settings([message.split()[-1]])["data.mask_pattern"]}))
    assert torch.equal(read(config(root, mask_pattern="{stem}_mask.png"))[1][1], torch.from_numpy(labels_of(1)))


@pytest.mark.parametrize(("suffix", "options"), [(".tif", {}), (".TIFF", {}), (".webp", {"lossless": True})])
def test_tiff_and_webp_images_are_read(root: Path, suffix: str, options: dict[str, bool]) -> None:
    plain = read(config(root))
    for path in (root / "train/images").iterdir():
        Image.open(path).save(path.with_suffix(suffix), **options)
        path.unlink()
    assert torch.equal(read(config(root))[0], plain[0])


def turn(path: Path) -> None:
    """Store an image turned by 90 degrees, with the orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).rotate(90, expand=True).save(path, exif=exif)


def test_images_are_turned_as_exif_says(root: Path) -> None:
    plain = read(config(root))
    turn(root / "train/images/n1.png")
    verify(config(root))
    assert all(torch.equal(one, other) for one, other in zip(read(config(root)), plain, strict=True))


def test_a_mask_that_fits_only_the_stored_pixels_is_refused(root: Path) -> None:
    turn(root / "train/images/n1.png")
    Image.open(root / "train/masks/n1.png").rotate(90, expand=True).save(root / "train/masks/n1.png")
    assert "(24 x 16) (turned as EXIF says), got 16 x 24 in" in refusal(config(root))


def test_other_aspect_ratios_are_refused_unless_it_is_said_what_to_do(root: Path) -> None:
    message = refusal(config(root, height=16, width=16))
    assert "(16 x 16), got 16 x 24 in" in message
    assert "data.fit=pad" in message
    images, labels = read(config(root, height=16, width=16, fit="stretch"))
    assert images.shape[-2:] == labels.shape[-2:] == (16, 16)


def test_padding_keeps_the_aspect_ratio_and_is_ignored(root: Path) -> None:
    data = config(root, height=32, width=24, fit="pad")
    verify(data)
    samples = open_val(data).fetch([0, 1])
    assert samples.images.shape == (2, 3, 32, 24)
    assert samples.sizes.tolist() == [[16, 24], [16, 24]]
    assert torch.equal(samples.labels[1, :16], torch.from_numpy(labels_of(1)))
    assert (samples.labels[:, 16:] == 255).all()


def test_validation_images_may_be_missing_until_they_are_read(root: Path) -> None:
    (root / "val").rename(root / "elsewhere")
    verify(config(root))
    assert FolderReader(config(root)).missing() == []
    with pytest.raises(DataError, match="val/images must be a folder of images"):
        open_val(config(root))


def test_a_folder_to_evaluate_is_read_by_the_same_rules(root: Path) -> None:
    rewrite(root, lambda m, at: Image.fromarray(TABLE[m]))
    source = folder_source(TrainConfig(data=config(root, palette=COLOURS)), root / "train")
    assert torch.equal(source.fetch([2]).labels[0], torch.from_numpy(labels_of(2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": {0: "a", 1: "b"}}, "values must name every class, got none for 'c'"),
        ({"values": {0: "a", 1: "b", 2: "d"}}, "values must name classes or ignore, got 'd'"),
        ({"palette": COLOURS | {"c": (0, 0, 0)}}, "palette must have another colour for each class"),
        ({"palette": COLOURS, "values": {0: "a", 1: "b", 2: "c"}}, "got both values and palette"),
        ({"mask_pattern": "mask.png"}, "mask_pattern must be the name of a file with {stem} in it once"),
    ],
)
def test_contradictions_are_refused(root: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(root, **changes)
    assert message in str(caught.value)


def test_mappings_in_any_order_are_one_config_and_come_back_from_a_file(root: Path) -> None:
    base = TrainConfig(data=config(root))
    one, other = (
        apply_overrides(base, parse_settings([f"data.values={text}"]))
        for text in ("{0: a, 9: b, 30: c}", "{30: c, 0: a, 9: b}")
    )
    assert one == other
    assert one.hash == other.hash != base.hash
    assert TrainConfig.model_validate_json(one.model_dump_json()) == one
    assert apply_overrides(one, {"data.seed": 1}).data.values == ((0, "a"), (9, "b"), (30, "c"))


def test_images_of_several_aspect_ratios_are_trained_on_with_padding(root: Path) -> None:
    turned = Image.open(root / "train/images/n3.png").rotate(90, expand=True)
    turned.save(root / "train/images/n3.png")
    Image.open(root / "train/masks/n3.png").rotate(90, expand=True).save(root / "train/masks/n3.png")
    names = {"name": "folder", "root": root, "classes": CLASSES, "height": 32, "width": 32, "fit": "pad"}
    data = {f"data.{name}": value for name, value in (names | {"labelled": 2, "dev": 1}).items()}
    batches = {"schedule.labelled_batch": 2, "schedule.unlabelled_batch": 2, "schedule.steps": 2}
    settings = tiny_config({**data, **batches})
    reported: list[float] = []
    train(settings, LocalRun(listener=lambda metrics: reported.append(metrics["train/loss/total"])))
    assert len(reported) == 1
    images, labels = read(config(root, height=32, width=32, fit="pad"))
    assert images.shape == (4, 3, 32, 32)
    assert (labels[3, :, 21:] == 255).all()
    assert (labels[0, 21:] == 255).all()
