"""Predictions of image files: masks at the images' own sizes, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainers.compute import forward
from trainers.config import FolderData
from trainers.css.pseudo_labels import upsample
from trainers.data.files import fit_within, open_image
from trainers.data.folder import IMAGE_SUFFIXES
from trainers.data.threads import in_threads
from trainers.drafts import draft_of
from trainers.errors import DataError, UsageError
from trainers.figure import overlay, palette
from trainers.loader import to_images
from trainers.models.served import Segmenter
from trainers.windows import sliding_labels

OVERLAYS = "overlays"
"""Folder of the blended pictures, below that of the masks."""
MAX_NUMBERS = 2**26
"""Numbers (256 MiB of float32) that logits at the size of a large image may take at once."""

Mask = NDArray[np.uint8]


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and of each folder its images, sorted by name.

    Raises:
        DataError: a path does not exist, a folder holds no images, or two files differ only in folder or suffix.
    """
    images: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise DataError(
                    f"a folder must hold images ({', '.join(IMAGE_SUFFIXES)}), got none in {path}: check it"
                )
            images += inside
        elif path.exists():
            images.append(path)
        else:
            raise DataError(f"an image must exist, got {path}: check the path")
    by_name: dict[str, Path] = {}
    for path in images:
        if by_name.setdefault(path.stem, path) is not path:
            raise DataError(
                f"images must have names of their own, for masks are named after them, got {by_name[path.stem]} and "
                f"{path}: rename one, or predict them apart"
            )
    return images


def check_images(images: Sequence[Path]) -> None:
    """Decode every image and keep none.

    Raises:
        DataError: names the first that cannot be decoded.
    """
    in_threads(lambda index: open_image(images[index], oriented=True), range(len(images)))


def check_out(images: Sequence[Path], out: Path) -> None:
    """Make sure that nothing written to the folder replaces an image.

    Raises:
        UsageError: an image lies in the folder, or it is a file.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must be a folder, got the file {out}: choose another")
    for image in images:
        if image.resolve().parent in (out.resolve(), (out / OVERLAYS).resolve()):
            raise UsageError(f"--out must be another folder than that of the images, got {out} for {image}: choose one")


@torch.no_grad()
def predict_labels(segmenter: Segmenter, image: Image.Image) -> Mask:
    """Return the class of every pixel of an image of any size, uint8 [H, W].

    The network sees the image as it sees stored ones: resized where the config stores one size, in windows where it
    says so. Logits of a whole image are brought to the size of the image, then the largest is taken; labels from
    windows are resized to the nearest pixel where the image was. With `data.fit=pad` the image keeps its aspect ratio,
    else it may be squashed.
    """
    config, image = segmenter.config, image.convert("RGB")
    shape = config.data.image_shape or (image.height, image.width)
    if isinstance(config.data, FolderData) and config.data.fit == "pad":
        shape = fit_within((image.height, image.width), shape)
    sized = image if image.size == shape[::-1] else image.resize(shape[::-1], Image.Resampling.BILINEAR)
    stored = torch.from_numpy(np.array(sized)).permute(2, 0, 1).unsqueeze(0)
    inputs = to_images(stored, segmenter.device)
    if config.evaluation.mode == "whole":
        logits = forward(segmenter.network, inputs, config).logits
        return _as_mask(upsampled_argmax(logits, (image.height, image.width))[0])
    settings = config.evaluation
    labels = sliding_labels(
        lambda windows: segmenter(windows).softmax(dim=1), inputs[0], settings.window, settings.overlap, settings.batch
    )
    mask = _as_mask(labels)
    if mask.shape == (image.height, image.width):
        return mask
    return np.array(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))


def upsampled_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the argmax [N, H, W] over the classes of logits [N, K, h, w] that are resized to `size`.

    The same as `upsample(logits, size).argmax(1)` up to rounding, a few classes at a time where all of them would take
    more than `MAX_NUMBERS` numbers.
    """
    step = max(1, MAX_NUMBERS // (logits.shape[0] * size[0] * size[1]))
    value, label = upsample(logits[:, :step], size).max(dim=1)
    for first in range(step, logits.shape[1], step):
        chunk_value, chunk_label = upsample(logits[:, first : first + step], size).max(dim=1)
        label = torch.where(chunk_value > value, chunk_label + first, label)
        value = torch.maximum(value, chunk_value)
    return label


def write_predictions(
    segmenter: Segmenter, images: Sequence[Path], out: Path, overlays: bool = False
) -> Iterator[Path]:
    """Write OUT/NAME.png for each image, a mask of class indices with the palette of the figures; yield its path.

    Images are turned as their EXIF orientation says, so masks fit what viewers show.

    With `overlays`, OUT/overlays/NAME.png is the image with the colours of the classes over it. Each file is written
    whole or not at all; masks of an earlier call are replaced.

    Raises:
        DataError: an image cannot be decoded.
        UsageError: the folder is that of an image.
    """
    check_out(images, out)
    for path in images:
        image = open_image(path, oriented=True).convert("RGB")
        label = predict_labels(segmenter, image)
        target = out / f"{path.stem}.png"
        write_png(target, mask_image(label, len(segmenter.classes)))
        if overlays:
            blended = overlay(np.array(image), label, len(segmenter.classes))
            write_png(out / OVERLAYS / f"{path.stem}.png", Image.fromarray(blended))
        yield target


def mask_image(label: Mask, num_classes: int) -> Image.Image:
    """Return labels [H, W] as an image of one byte a pixel, whose palette has the colours of the figures."""
    picture = Image.fromarray(label)
    picture.putpalette(palette(num_classes).tobytes())
    return picture


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a PNG whole or not at all, into a folder that is made where it is missing."""
    with draft_of(path) as draft:
        picture.save(draft, format="PNG")


def _as_mask(label: Tensor) -> Mask:
    mask: Mask = label.cpu().numpy().astype(np.uint8)
    return mask
