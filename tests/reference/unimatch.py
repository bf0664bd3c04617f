"""Losses of FixMatch, UniMatch and UniMatch V2 on given logits, from their papers' equations, in float64.

A view is the student's logits [N, K, H, W], pseudo-labels [N, H, W], 255 ignored, and their confidences [N, H, W].
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
View = tuple[Array, npt.NDArray[np.int64], Array]
IGNORED = 255


def cross_entropies(logits: Array, label: npt.NDArray[np.int64]) -> Array:
    """Of each pixel that is not ignored, else 0; [N, H, W]."""
    values = np.zeros(label.shape)
    for n, y, x in np.ndindex(*label.shape):
        if label[n, y, x] != IGNORED:
            scores = logits[n, :, y, x]
            values[n, y, x] = np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[label[n, y, x]]
    return values


def supervised(logits: Array, label: npt.NDArray[np.int64]) -> float:
    """L_s: the mean over the labelled pixels."""
    return float(cross_entropies(logits, label).sum() / (label != IGNORED).sum())


def of_view(view: View, threshold: float) -> float:
    """Confident pixels are summed, and divided by all that are not ignored."""
    logits, label, confidence = view
    total = cross_entropies(logits, label)[confidence >= threshold].sum()
    return float(total / (label != IGNORED).sum())


def fixmatch(labelled: float, views: list[View], threshold: float) -> float:
    """Half of both losses."""
    (strong,) = views
    return (labelled + of_view(strong, threshold)) / 2


def unimatch(labelled: float, views: list[View], threshold: float) -> float:
    """Two strong views, and perturbed features of the weak one, which weigh as much as both."""
    first, second, features = (of_view(view, threshold) for view in views)
    return (labelled + 0.25 * first + 0.25 * second + 0.5 * features) / 2


def unimatch_v2(labelled: float, views: list[View], threshold: float) -> float:
    """The mean of two strong views."""
    first, second = (of_view(view, threshold) for view in views)
    return (labelled + (first + second) / 2) / 2
