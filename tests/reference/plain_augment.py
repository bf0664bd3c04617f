"""Strong augmentation with given draws, an image at a time in float64: what ours is compared with.

Written from the definitions, with none of ours but the draws: places by whole pixels, the hue as a rotation in YIQ, the
blur by SciPy. The order of the parts, the box and the classes of ClassMix are those that a config names.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from trainers.augment.geometry import GeometryParams
from trainers.augment.mixing import MixParams
from trainers.augment.photometric import BlurParams, GreyParams, JitterParams
from trainers.config import StrongAugmentConfig

Array = npt.NDArray[np.float64]
IGNORED = 255
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class Sample(NamedTuple):
    """One image and its maps."""

    image: Array
    """[3, H, W] in [0, 1]."""
    label: Array
    """[H, W]."""
    confidence: Array
    """[H, W]."""


class Draws(NamedTuple):
    """Of a batch."""

    geometry: GeometryParams
    jitter: JitterParams
    blur: BlurParams
    mix: MixParams
    grey: GreyParams


def strong_views(samples: list[Sample], draws: Draws, config: StrongAugmentConfig) -> list[Sample]:
    """Augment a batch; images 0 and 1, 2 and 3, ... are mixed with each other."""
    rows = range(len(samples))
    if config.order == "mix_first":
        moved = [_magnify(samples[row], draws.geometry, row) for row in rows]
        mixed = [_mix(moved[row], moved[row ^ 1], draws.mix, row, config) for row in rows]
        coloured = [_recolour(mixed[row], draws, row, config) for row in rows]
        return [_flip(coloured[row]) if draws.geometry.flip[row] else coloured[row] for row in rows]
    moved = [_magnify(samples[row], draws.geometry, row) for row in rows]
    moved = [_flip(moved[row]) if draws.geometry.flip[row] else moved[row] for row in rows]
    coloured = [_recolour(moved[row], draws, row, config) for row in rows]
    return [_mix(coloured[row], coloured[row ^ 1], draws.mix, row, config) for row in rows]


def _flip(sample: Sample) -> Sample:
    return Sample(*(values[..., ::-1] for values in sample))


def _magnify(sample: Sample, params: GeometryParams, row: int) -> Sample:
    """Look at the image through a window of its size."""
    scale, image = params.scale[row].item(), sample.image
    seen, near = [], []
    for axis, size in enumerate(sample.label.shape):
        anchor, shift = params.anchor[row, axis].item(), params.shift[row, axis].item()
        places = round(anchor * (size - size / scale) + shift * size) + (np.arange(size) + 0.5) / scale
        seen.append((places >= 0) & (places < size))
        near.append(np.clip(np.floor(places).astype(int), 0, size - 1))
        image = _interpolate(image, places, axis + 1)
    inside = np.logical_and.outer(*seen)
    return Sample(
        np.where(inside, image, sample.image.mean((1, 2))[:, None, None]),
        np.where(inside, sample.label[np.ix_(*near)], IGNORED),
        np.where(inside, sample.confidence[np.ix_(*near)], 0.0),
    )


def _interpolate(image: Array, places: Array, axis: int) -> Array:
    """Values between the centres of pixels, which lie at 0.5, 1.5, ...; beyond the outermost centres, theirs."""
    size = image.shape[axis]
    at = np.clip(places - 0.5, 0, size - 1)
    below = np.minimum(np.floor(at).astype(int), size - 2)
    shape = [1, 1, 1]
    shape[axis] = -1
    share = (at - below).reshape(shape)
    low, high = np.take(image, below, axis), np.take(image, below + 1, axis)
    return low * (1 - share) + high * share


def _recolour(sample: Sample, draws: Draws, row: int, config: StrongAugmentConfig) -> Sample:
    image = sample.image
    if draws.jitter.apply[row]:
        brightness, contrast, saturation, hue = (column[row].item() for column in draws.jitter[1:])
        grey = np.tensordot(YIQ[0], image, 1).mean() * brightness
        yiq = np.tensordot(YIQ, (image * brightness - grey) * contrast + grey, 1)
        turn = np.array([[np.cos(hue), -np.sin(hue)], [np.sin(hue), np.cos(hue)]])
        yiq[1:] = saturation * np.tensordot(turn, yiq[1:], 1)
        image = np.clip(np.tensordot(np.linalg.inv(YIQ), yiq, 1), 0, 1)
    if draws.grey.apply[row]:
        image = np.broadcast_to(np.tensordot(YIQ[0], image, 1), image.shape)
    if draws.blur.apply[row]:
        radius = int(np.ceil(3 * config.blur_sigma[1]))
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / draws.blur.sigma[row].item()) ** 2)
        for axis in (1, 2):
            image = correlate1d(image, weights / weights.sum(), axis, mode="nearest")
    return sample._replace(image=image)


def _mix(sample: Sample, partner: Sample, params: MixParams, row: int, config: StrongAugmentConfig) -> Sample:
    if not params.apply[row]:
        return sample
    mask = np.zeros(sample.label.shape, dtype=bool)
    if config.mix == "classmix":
        counted = [int(c) for c in np.unique(partner.label) if c != IGNORED or config.classmix == "published"]
        half = len(counted) // 2 if config.classmix == "published" else -(-len(counted) // 2)
        counted.sort(key=lambda c: params.priority[row, c].item())
        mask = np.isin(partner.label, counted[:half])
    else:
        height, width = mask.shape
        rows, columns = round(params.height[row].item() * height), round(params.width[row].item() * width)
        top = round(params.top[row].item() * (height - rows))
        left = round(params.left[row].item() * (width - columns))
        mask[top : top + rows, left : left + columns] = True
    if config.mix == "cutout":
        mean = np.broadcast_to(sample.image.mean((1, 2))[:, None, None], sample.image.shape)
        partner = Sample(mean, np.full(mask.shape, float(IGNORED)), np.zeros(mask.shape))
    return Sample(*(np.where(mask, theirs, mine) for theirs, mine in zip(partner, sample, strict=True)))
