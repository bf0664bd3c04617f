"""Strong augmentation an image at a time with Pillow and torchvision: what ours is timed against.

Published code turns every image and its maps into 8-bit pictures, so that confidences are rounded to 1 / 255, works on
them one by one, turns them back into tensors, and mixes in a loop over the batch. Its draws have the same ranges as
in our config, but the operations are Pillow's (hue by HSV, for one): nothing is compared with it but time.
"""

import random
from typing import NamedTuple

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as TF

IGNORED = 255


class Sample(NamedTuple):
    """One image and its maps, as 8-bit pictures."""

    image: Image.Image
    label: Image.Image
    confidence: Image.Image


class Strength(NamedTuple):
    """What is drawn for each image."""

    scale: tuple[float, float]
    jitter: float
    """Probability."""
    colours: ColorJitter
    blur: float
    """Probability."""
    blur_sigma: tuple[float, float]


def augment_batch(
    images: Tensor, label: Tensor, confidence: Tensor, strength: Strength, draws: random.Random
) -> tuple[Tensor, Tensor, Tensor]:
    """Images [N, 3, H, W] in [0, 1], labels [N, H, W] int64 and confidences [N, H, W] in [0, 1], all augmented."""
    done = []
    for sample in zip(images, label, confidence, strict=True):
        done.append(_to_tensors(_augment(_to_pictures(*sample), strength, draws)))
    maps = [torch.stack(column) for column in zip(*done, strict=True)]
    mixed = [column.clone() for column in maps]
    for index in range(len(images)):
        rows, columns = _box(images.shape[-2:], draws)
        partner = (index + 1) % len(images)
        for into, source in zip(mixed, maps, strict=True):
            into[index, ..., rows, columns] = source[partner, ..., rows, columns]
    return mixed[0], mixed[1], mixed[2]


def _to_pictures(image: Tensor, label: Tensor, confidence: Tensor) -> Sample:
    return Sample(
        TF.to_pil_image(image), TF.to_pil_image(label.to(torch.uint8)), TF.to_pil_image((confidence * 255).byte())
    )


def _to_tensors(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    return (
        TF.to_tensor(sample.image),
        TF.pil_to_tensor(sample.label).squeeze(0).long(),
        TF.pil_to_tensor(sample.confidence).squeeze(0).float() / 255,
    )


def _augment(sample: Sample, strength: Strength, draws: random.Random) -> Sample:
    sample = _scale_and_crop(sample, draws.uniform(*strength.scale), draws)
    if draws.random() < 0.5:
        sample = Sample(*(TF.hflip(picture) for picture in sample))
    image = sample.image
    if draws.random() < strength.jitter:
        image = strength.colours(image)
    if draws.random() < strength.blur:
        image = image.filter(ImageFilter.GaussianBlur(draws.uniform(*strength.blur_sigma)))
    return sample._replace(image=image)


def _scale_and_crop(sample: Sample, scale: float, draws: random.Random) -> Sample:
    width, height = sample.image.size
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    bilinear, nearest = TF.InterpolationMode.BILINEAR, TF.InterpolationMode.NEAREST
    resized = Sample(
        TF.resize(sample.image, size, bilinear),
        TF.resize(sample.label, size, nearest),
        TF.resize(sample.confidence, size, nearest),
    )
    margin = [0, 0, max(0, width - size[1]), max(0, height - size[0])]
    padded = Sample(
        TF.pad(resized.image, margin, fill=128),
        TF.pad(resized.label, margin, fill=IGNORED),
        TF.pad(resized.confidence, margin, fill=0),
    )
    top = draws.randint(0, padded.image.height - height)
    left = draws.randint(0, padded.image.width - width)
    return Sample(*(TF.crop(picture, top, left, height, width) for picture in padded))


def _box(size: torch.Size, draws: random.Random) -> tuple[slice, slice]:
    """A box of 10 % to 50 % of the image."""
    height, width = size
    side = draws.uniform(0.1, 0.5) ** 0.5
    rows, columns = round(side * height), round(side * width)
    top, left = draws.randint(0, height - rows), draws.randint(0, width - columns)
    return slice(top, top + rows), slice(left, left + columns)
