"""Eq. 8 and its image-weighted variant, one pixel at a time. 0 where nothing counts."""

import math

import numpy as np
from reference.prototypes import IGNORED, pixels


def cross_entropy(logits: list[float], target: int) -> float:
    return math.log(sum(math.exp(value - max(logits)) for value in logits)) + max(logits) - logits[target]


def confident_pixel_loss(logits: np.ndarray, target: np.ndarray, confidence: np.ndarray, threshold: float) -> float:
    """Mean over the labelled pixels whose confidence reaches the threshold."""
    values = [
        cross_entropy(logits[n, :, y, x].tolist(), target[n, y, x])
        for n, y, x in pixels(target)
        if target[n, y, x] != IGNORED and confidence[n, y, x] >= threshold
    ]
    return sum(values) / len(values) if values else 0.0


def image_share_loss(logits: np.ndarray, target: np.ndarray, confidence: np.ndarray, threshold: float) -> float:
    """Mean over all labelled pixels of their loss times their image's share of confident ones among the labelled."""
    weighted = []
    for n in range(len(target)):
        losses = {
            (y, x): cross_entropy(logits[n, :, y, x].tolist(), target[n, y, x])
            for y, x in np.ndindex(*target[n].shape)
            if target[n, y, x] != IGNORED
        }
        confident = [place for place in losses if confidence[n][place] >= threshold]
        weighted += [loss * len(confident) / len(losses) for loss in losses.values()]
    return sum(weighted) / len(weighted) if weighted else 0.0


def weighted_mean(logits: np.ndarray, target: np.ndarray, weights: tuple[float, ...]) -> float:
    """The mean over labelled pixels, each counted with its class's weight; 0 where there are none."""
    terms = [
        (weights[target[n, y, x]], cross_entropy(logits[n, :, y, x].tolist(), target[n, y, x]))
        for n, y, x in pixels(target)
        if target[n, y, x] != 255
    ]
    total = sum(weight for weight, _ in terms)
    return sum(weight * loss for weight, loss in terms) / total if terms else 0.0


def hard_examples_of_a_batch(logits: np.ndarray, target: np.ndarray, threshold: float, min_kept: int) -> np.ndarray:
    """Which pixels are kept where the whole batch chooses its hardest: as one image that holds all of them."""
    N, K, H, W = logits.shape
    wide = hard_examples(
        logits.transpose(1, 0, 2, 3).reshape(1, K, N * H, W), target.reshape(1, N * H, W), threshold, N * min_kept
    )
    return wide.reshape(target.shape)


def hard_examples(logits: np.ndarray, target: np.ndarray, threshold: float, min_kept: int) -> np.ndarray:
    """Which pixels are kept: of each image those at most as probable as the threshold, and its hardest ones."""
    kept = np.zeros(target.shape, dtype=bool)
    for n in range(len(target)):
        labelled = [(y, x) for _, y, x in pixels(target[n : n + 1]) if target[n, y, x] != 255]
        probability = {
            (y, x): math.exp(-cross_entropy(logits[n, :, y, x].tolist(), target[n, y, x])) for y, x in labelled
        }
        hardest = set(sorted(labelled, key=lambda place: probability[place])[:min_kept])
        for place in labelled:
            kept[n][place] = place in hardest or probability[place] <= threshold
    return kept
