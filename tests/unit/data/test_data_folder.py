"""Reading a folder: what is right is read exactly, what is wrong is named."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.config import FolderData
from trainers.data.files import FileSource
from trainers.data.folder import FolderReader, list_pairs
from trainers.data.splits import open_splits, open_val, verify
from trainers.errors import DataError

SIZE = (16, 20)  # height, width


def write_pair(part: Path, name: str, rng: np.random.Generator, suffix: str = ".png", mask: bool = True) -> None:
    for folder in ("images", "masks"):
        (part / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(part / "images" / f"{name}{suffix}")
    if mask:
        labels = rng.integers(0, 4, SIZE, dtype=np.uint8)
        labels[labels == 3] = 11
        Image.fromarray(labels).save(part / "masks" / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(10):
        write_pair(tmp_path / "train", f"t{index}", rng, suffix=(".png", ".jpg", ".JPEG")[index % 3])
    for index in range(3):
        write_pair(tmp_path / "val", f"v{index}", rng)
    return tmp_path


def config(root: Path, **changes: object) -> FolderData:
    fields: dict[str, object] = {
        "root": root, "classes": ("a", "b", "c"), "ignore_values": (11, 255), "height": SIZE[0], "width": SIZE[1],
        "labelled": 3, "dev": 2,
    }  # fmt: skip
    return FolderData.model_validate(fields | changes)


def refusal(data: FolderData) -> str:
    with pytest.raises(DataError) as caught:
        verify(data)
    message = str(caught.value)
    assert "\n" not in message
    assert ", got " in message
    return message


def test_lossless_files_of_the_right_size_are_read_exactly(root: Path) -> None:
    source = FileSource(FolderReader(config(root)).coding, list_pairs(config(root), "train"))
    index = source.names.index("t3")
    images, labels, sizes = source.fetch([index])
    assert sizes.tolist() == [list(SIZE)]
    pixels = np.asarray(Image.open(root / "train/images/t3.png"))
    values = np.asarray(Image.open(root / "train/masks/t3.png"))
    assert torch.equal(images[0].permute(1, 2, 0), torch.from_numpy(pixels.copy()))
    assert torch.equal(labels[0], torch.from_numpy(np.where(values == 11, 255, values)))


def test_resizing_averages_images_and_copies_labels(root: Path) -> None:
    half = np.zeros((64, 80, 3), np.uint8)
    half[:, 1::2] = 200  # stripes that only antialiasing turns into grey
    Image.fromarray(half).save(root / "val/images/v0.png")
    labels = np.zeros((64, 80), np.uint8)
    labels[:, 40:] = 2
    Image.fromarray(labels).save(root / "val/masks/v0.png")
    image, label, _ = open_val(config(root)).fetch([0])
    assert (image.shape, label.shape) == ((1, 3, *SIZE), (1, *SIZE))
    assert (image[..., 2:-2].float() - 100).abs().max() <= 6
    assert label.unique().tolist() == [0, 2]
    assert (label[:, :, :10] == 0).all()
    assert (label[:, :, 10:] == 2).all()


def test_each_image_is_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_val(config(root))
    first = source.fetch([0, 1, 2, 1])
    monkeypatch.setattr(Image, "open", None)
    again = source.fetch([0, 1, 2, 1])
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_palette_masks_hold_their_indices(root: Path) -> None:
    path = root / "val/masks/v0.png"
    values = np.asarray(Image.open(path))
    palette = Image.fromarray(values, mode="L").convert("P")
    palette.putpalette([channel for value in range(256) for channel in (255 - value, value, 7)])
    palette.putdata(values.ravel().tolist())
    palette.save(path)
    with Image.open(path) as saved:
        assert saved.mode == "P"
    _, label, _ = open_val(config(root)).fetch([0])
    assert torch.equal(label[0], torch.from_numpy(np.where(values == 11, 255, values)))


def test_an_unlabelled_image_may_lack_a_mask_and_is_never_drawn_as_labelled(root: Path) -> None:
    rng = np.random.default_rng(1)
    for index in range(20):
        write_pair(root / "train", f"u{index}", rng, mask=False)
    for seed in range(5):
        data = config(root, seed=seed, labelled=6, dev=4)
        verify(data)
        splits = open_splits(data)
        assert sorted(splits.unlabelled.names) == sorted(f"u{index}" for index in range(20))
        assert (splits.unlabelled.fetch([0])[1] == 255).all()


def test_an_unlabelled_image_keeps_its_mask(root: Path) -> None:
    assert (open_splits(config(root, seed=9)).unlabelled.fetch([0])[1] != 255).any()


def test_a_right_folder_is_accepted(root: Path) -> None:
    verify(config(root), needs_unlabelled=True)


def test_a_missing_root_is_named(root: Path) -> None:
    assert f"data.root must be a folder, got {root / 'nowhere'}" in refusal(config(root / "nowhere"))


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_folder_is_named(root: Path, part: str) -> None:
    (root / part / "images").rename(root / part / "pictures")
    assert str(root / part / "images") in refusal(config(root))


def test_a_folder_without_images_is_named(root: Path) -> None:
    for path in (root / "val/images").iterdir():
        path.rename(path.with_suffix(".txt"))
    assert refusal(config(root)).startswith(
        f"{root / 'val/images'} must hold images (.jpg, .jpeg, .png, .tif, .tiff, .webp), got none"
    )


def test_two_images_of_one_name_are_refused(root: Path) -> None:
    write_pair(root / "train", "t0", np.random.default_rng(2), suffix=".jpg")
    assert "names of images must be unique, got t0.jpg and t0.png" in refusal(config(root))


def test_a_validation_image_without_a_mask_is_named(root: Path) -> None:
    (root / "val/masks/v1.png").unlink()
    message = refusal(config(root))
    assert message.startswith(f"every validation image must have a mask, got {root / 'val/images/v1.png'} without one")


def test_a_listed_image_without_a_mask_is_named(root: Path) -> None:
    (root / "train/masks/t4.png").unlink()
    (root / "labelled.txt").write_text("t4\n")
    message = refusal(config(root, labelled=root / "labelled.txt"))
    assert message.startswith("every labelled image must have a mask, got")
    assert "t4.jpg" in message


def test_a_mask_of_another_size_is_named_with_both_sizes(root: Path) -> None:
    Image.new("L", (8, 9)).save(root / "val/masks/v2.png")
    message = refusal(config(root))
    assert f"a mask must have the size of its image (20 x 16), got 8 x 9 in {root / 'val/masks/v2.png'}" in message


def test_a_value_that_is_no_class_is_named_with_its_file(root: Path) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[3, 4], labels[0, 0] = 3, 200
    Image.fromarray(labels).save(root / "train/masks/t7.png")
    message = refusal(config(root))
    assert f"(0 to 2) or in data.ignore_values [11, 255], got 3, 200 in {root / 'train/masks/t7.png'}" in message


def test_an_image_that_is_no_image_is_named(root: Path) -> None:
    (root / "train/images/t6.png").write_bytes(b"not an image")
    assert refusal(config(root)).startswith(f"{root / 'train/images/t6.png'} must be an image that can be decoded, got")


@pytest.mark.parametrize("file", ["images/t1.jpg", "masks/t1.png"])
def test_a_truncated_file_is_named(root: Path, file: str) -> None:
    path = root / "train" / file
    path.write_bytes(path.read_bytes()[:-60])
    assert refusal(config(root)).startswith(f"{path} must be an image that can be decoded, got")


def test_a_broken_image_is_named_when_it_is_fetched(root: Path) -> None:
    source = open_val(config(root))
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16)).save(buffer, "png")
    (root / "val/images/v1.png").write_bytes(buffer.getvalue()[:40])
    source.fetch([0, 2])
    with pytest.raises(DataError, match=r"v1\.png must be an image"):
        source.fetch([0, 1])
