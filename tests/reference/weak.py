"""Weak labels, a pixel at a time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
UNKNOWN = 255


def partial_label_loss(logits: Array, weak: Labels, groups: Sequence[Sequence[int]]) -> float:
    """Mean over the pixels [N, H, W] of known group of -log of the sum of its classes' probabilities."""
    losses = []
    for n, y, x in np.ndindex(*weak.shape):
        if weak[n, y, x] != UNKNOWN:
            exponents = np.exp(logits[n, :, y, x] - logits[n, :, y, x].max())
            probs = exponents / exponents.sum()
            losses.append(-np.log(sum(probs[c] for c in groups[weak[n, y, x]])))
    return float(np.mean(losses)) if losses else 0.0


def vetoed(labels: Labels, weak: Labels, groups: Sequence[Sequence[int]]) -> Labels:
    """Labels [N, H, W] with 255 where they are none of the known group's classes."""
    kept = labels.copy()
    for at in np.ndindex(*labels.shape):
        if weak[at] != UNKNOWN and labels[at] not in groups[weak[at]]:
            kept[at] = UNKNOWN
    return kept
