"""Scores of pseudo-labels, one pixel at a time, and sliding windows, one at a time. All arrays are NumPy."""

import math
from collections.abc import Callable, Iterable

import numpy as np

IGNORED = 255


def miou(pairs: Iterable[tuple[int, int]]) -> float:
    """Mean over the classes that occur of hits by union, of (truth, label) of every pixel."""
    pairs = list(pairs)
    ious = []
    for class_ in {class_ for pair in pairs for class_ in pair}:
        hits = sum(truth == label == class_ for truth, label in pairs)
        ious.append(hits / sum(class_ in pair for pair in pairs))
    return sum(ious) / len(ious)


def accuracy(pairs: Iterable[tuple[int, int]]) -> float:
    """Share of the pixels whose label is their truth."""
    pairs = list(pairs)
    return sum(truth == label for truth, label in pairs) / len(pairs)


def kept_pairs(truth: np.ndarray, label: np.ndarray) -> list[tuple[int, int]]:
    """(truth, label) of the pixels that have both."""
    pairs = zip(truth.ravel().tolist(), label.ravel().tolist(), strict=True)
    return [pair for pair in pairs if IGNORED not in pair]


def quality(
    truth: np.ndarray, logit: np.ndarray, representation: np.ndarray, confidence: np.ndarray, delta_u: float
) -> dict[str, float]:
    """Every quality metric of label maps [N, H, W] of any classes, where each kind keeps something."""
    known = int((truth != IGNORED).sum())
    kinds = {
        "logit": logit,
        "confident": np.where(confidence >= delta_u, logit, IGNORED),
        "representation": representation,
        "mix": np.where(logit == representation, logit, IGNORED),
    }
    metrics = {"quality/agreement": sum((logit == representation).ravel().tolist()) / logit.size}
    for kind, label in kinds.items():
        pairs = kept_pairs(truth, label)
        metrics |= {f"quality/{kind}/miou": miou(pairs), f"quality/{kind}/accuracy": accuracy(pairs)}
        if kind in ("mix", "confident"):
            metrics[f"quality/{kind}/share"] = len(pairs) / known
    return metrics


def entropy(shares: Iterable[float], num_classes: int) -> float:
    """Of a distribution, over the largest that K classes can have."""
    return -sum(share * math.log(share) for share in shares if share > 0) / math.log(num_classes)


def window_mean(
    probs: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    window: tuple[int, int],
    starts: tuple[list[int], list[int]],
) -> np.ndarray:
    """Mean probability [K, H, W] of each pixel of [3, H, W], one pixel and one window at a time."""
    window_probs = {}
    for top in starts[0]:
        for left in starts[1]:
            window_probs[top, left] = probs(image[:, top : top + window[0], left : left + window[1]])
    first = next(iter(window_probs.values()))
    out = np.zeros((len(first), *image.shape[1:]))
    for y, x in np.ndindex(*image.shape[1:]):
        covering = [
            part[:, y - top, x - left]
            for (top, left), part in window_probs.items()
            if top <= y < top + part.shape[1] and left <= x < left + part.shape[2]
        ]
        out[:, y, x] = sum(covering) / len(covering)
    return out
