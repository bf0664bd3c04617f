"""Small data sets in the layouts that their authors publish them in, of images that differ in size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

Values = NDArray[np.uint8]


def values(seed: int, allowed: Sequence[int]) -> Values:
    """A mask of blocks with values of `allowed`; its size is a function of the seed."""
    rng = np.random.default_rng(seed)
    height, width = 16 + 4 * (seed % 3), 20 + 4 * (seed % 2)
    blocks = rng.choice(np.asarray(allowed, dtype=np.uint8), (height // 4, width // 4))
    return blocks.repeat(4, 0).repeat(4, 1)


def write_image(path: Path, size: tuple[int, ...], seed: int = 0) -> None:
    """Write noise of this height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def write_mask(path: Path, mask: Values, palette: bool = False) -> None:
    """Write values as they are, or as indices of a palette of other colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if palette:
        image = image.convert("P")
        image.putdata(mask.ravel().tolist())
        image.putpalette([channel for value in range(256) for channel in (value ^ 0x80, 255 - value, 7)])
    image.save(path)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write one word a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


VOC_TRAIN = [f"2007_{at:06d}" for at in range(10)]
VOC_VAL = [f"2008_{at:06d}" for at in range(4)]
SBD_ONLY = [f"2010_{at:06d}" for at in range(12)]


def voc_mask(name: str) -> Values:
    """The mask of an image, by its name."""
    return values(int(name[:4]) * 100 + int(name[5:]), [0, 1, 5, 20, 255])


def sbd_mask(name: str) -> Values:
    """SBD's mask of an image; another one than VOC's."""
    return values(int(name[:4]) * 100 + int(name[5:]), [0, 2, 7])


def voc_tree(root: Path) -> None:
    """VOC 2012 without SBD."""
    base = root / "VOCdevkit" / "VOC2012"
    for name in [*VOC_TRAIN, *VOC_VAL, *SBD_ONLY]:
        write_image(base / "JPEGImages" / f"{name}.jpg", voc_mask(name).shape)
    for name in [*VOC_TRAIN, *VOC_VAL]:
        write_mask(base / "SegmentationClass" / f"{name}.png", voc_mask(name), palette=True)
    write_lines(base / "ImageSets" / "Segmentation" / "train.txt", VOC_TRAIN)
    write_lines(base / "ImageSets" / "Segmentation" / "val.txt", VOC_VAL)


def sbd_tree(root: Path) -> None:
    """SBD's release, whose training list holds two of VOC's validation images, and VOC's training images."""
    base = root / "benchmark_RELEASE" / "dataset"
    (base / "cls").mkdir(parents=True)
    for name in [*SBD_ONLY, *VOC_VAL[:3], *VOC_TRAIN[:5]]:
        struct = {"Boundaries": np.zeros((1, 1)), "Segmentation": sbd_mask(name), "CategoriesPresent": np.zeros((1, 1))}
        savemat(base / "cls" / f"{name}.mat", {"GTcls": struct})
    write_lines(base / "train.txt", [*SBD_ONLY[:8], *VOC_VAL[:2], *VOC_TRAIN[:5]])
    write_lines(base / "val.txt", [*SBD_ONLY[8:], VOC_VAL[2]])


def converted_sbd(root: Path) -> None:
    """SBD's labels as people pass them on: images of indices for training and validation."""
    for name in [*SBD_ONLY, *VOC_VAL, *VOC_TRAIN]:
        write_mask(root / "VOCdevkit" / "VOC2012" / "SegmentationClassAug" / f"{name}.png", sbd_mask(name))


def cityscapes_tree(root: Path) -> None:
    """Two cities to train on, one to validate, with ids of all kinds."""
    for part, city, count in (("train", "aachen", 5), ("train", "ulm", 4), ("val", "lindau", 3)):
        for at in range(count):
            name = f"{city}_{at:06d}_000019"
            mask = values(len(city) * 10 + at, list(range(34)))
            write_image(root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", mask.shape)
            write_mask(root / "gtFine" / part / city / f"{name}_gtFine_labelIds.png", mask)
            write_mask(root / "gtFine" / part / city / f"{name}_gtFine_instanceIds.png", mask)


def ade20k_tree(root: Path) -> None:
    """The challenge's folders."""
    for part, stem, count in (("training", "ADE_train", 8), ("validation", "ADE_val", 3)):
        for at in range(count):
            mask = values(at, [0, 1, 2, 75, 150])
            write_image(root / "images" / part / f"{stem}_{at:08d}.jpg", mask.shape)
            write_mask(root / "annotations" / part / f"{stem}_{at:08d}.png", mask)


def coco_stuff_tree(root: Path) -> None:
    """Version 1.1 of the 10K release."""
    (root / "annotations").mkdir(parents=True)
    for part, count in (("train", 8), ("test", 3)):
        names = [f"COCO_train2014_{len(part)}{at:011d}" for at in range(count)]
        for at, name in enumerate(names):
            mask = values(at, [0, 1, 11, 13, 90, 92, 182])
            write_image(root / "images" / f"{name}.jpg", mask.shape)
            savemat(root / "annotations" / f"{name}.mat", {"S": mask, "captions": np.array(["a scene"])})
        write_lines(root / "imageLists" / f"{part}.txt", names)
