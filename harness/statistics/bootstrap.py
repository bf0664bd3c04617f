"""Bootstrap over validation images: how much a difference in mIoU owes to which images happen to be looked at.

This is another source of noise than seeds. Given these trained models, and nothing else, the interval says where the
difference might lie on other images of the same kind; what other seeds would have trained it does not know. An
interval over seeds supposes these images and leaves out what others would say. Neither contains the other: report both,
and do not add them up.

Images are drawn with replacement, the same for both variants and all their seeds, so that what is hard for all cancels.
A resample's mIoU is that of its summed confusion matrices, as `trainers.scores.iou_scores` defines it: classes in
neither truth nor prediction are left out. It is not the mean of images' mIoUs.

The interval is the percentile one. Bias-corrected ones (BC, BCa) were tried on simulated images and cover less.
`scipy.stats.bootstrap` would copy the images of each resample; here a resample is a row of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.statistics.intervals import LEVEL
from trainers.errors import UsageError

RESAMPLES = 10_000
CHUNK = 500
"""Resamples that are held at once: memory is CHUNK x (N + 4 S K) numbers."""
FEWEST = 2
"""Images that a resample can differ in."""

Counts = NDArray[np.integer]
"""Confusion matrices of images, rows truth, columns prediction: [N, K, K], or [S, N, K, K] for S seeds."""


class ImageInterval(NamedTuple):
    """A difference in mIoU, A - B, and where it might lie on other images."""

    difference: float
    """On all images as they are; mean over seeds."""
    std: float
    """Standard error that the choice of images makes."""
    low: float
    """Percentiles of the resamples: an interval of 95 %."""
    high: float
    images: int
    seeds: int
    resamples: int


def image_bootstrap(a: Counts, b: Counts, resamples: int = RESAMPLES, seed: int = 0) -> ImageInterval:
    """Return the interval over images of the difference in mIoU between two variants.

    Args:
        a: confusion matrices of variant A, of each validation image, [N, K, K] or [S, N, K, K].
        b: of variant B, of the same images in the same order and the same seeds.

    Raises:
        UsageError: shapes are not those of pairs, there are less than two images, or counts are negative.
    """
    seeds, images, classes = _require_pairs(a, b)
    parts = np.stack([_parts(side.reshape(seeds, images, classes, classes)) for side in (a, b)], axis=1)
    drawn = np.concatenate([_differences(weights, parts) for weights in _weights(images, resamples, seed)])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    difference = float(_differences(np.ones((1, images)), parts)[0])
    return ImageInterval(difference, float(drawn.std(ddof=1)), low, high, images, seeds, resamples)


def _parts(confusion: Counts) -> NDArray[np.float64]:
    """Return TP, and TP + FP + FN, of each image, seed and class, [N, 2, S, K], from [S, N, K, K]."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    unions = confusion.sum(-1) + confusion.sum(-2) - hits
    return np.stack([hits, unions]).transpose(2, 0, 1, 3).astype(np.float64)


def _differences(weights: NDArray[np.float64], parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the difference in mIoU of each resample, [R], mean over seeds, from [R, N] and [N, 2, 2, S, K]."""
    sums = (weights @ parts.reshape(len(parts), -1)).reshape(-1, *parts.shape[1:])
    hits, unions = sums[:, :, 0], sums[:, :, 1]
    occurring = unions > 0  # classes in neither truth nor prediction are left out
    iou = np.divide(hits, unions, out=np.zeros_like(hits), where=occurring)
    means = (iou.sum(-1) / np.maximum(occurring.sum(-1), 1)).mean(-1)
    return np.asarray(means[:, 0] - means[:, 1])


def _weights(images: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each resample has each image, [R, N], for R resamples at a time; rows sum to N."""
    draw = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = draw.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _require_pairs(a: Counts, b: Counts) -> tuple[int, int, int]:
    if a.shape != b.shape or a.ndim not in (3, 4) or a.shape[-1] != a.shape[-2] or 0 in a.shape:
        raise UsageError(
            "confusion matrices must be [N, K, K] or [S, N, K, K], of the same images and seeds for both variants, "
            f"got {[*a.shape]} and {[*b.shape]}: evaluate both on the same images"
        )
    if a.shape[-3] < FEWEST:
        raise UsageError(f"a bootstrap must have at least {FEWEST} images, got {a.shape[-3]}: evaluate more of them")
    if a.min() < 0 or b.min() < 0:
        raise UsageError("confusion matrices must be counts of pixels, got negative ones: give them as int64")
    return (a.shape[0] if a.ndim == 4 else 1), a.shape[-3], a.shape[-1]
