"""CPS's loss, a pixel at a time."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
IGNORED = 255


def cross_entropy(logits: Array, labels: Labels) -> float:
    """Mean over the pixels [N, H, W] that have a label, of logits [N, K, H, W]."""
    losses = []
    for n, y, x in np.ndindex(*labels.shape):
        if labels[n, y, x] != IGNORED:
            exponents = np.exp(logits[n, :, y, x] - logits[n, :, y, x].max())
            losses.append(-np.log(exponents[labels[n, y, x]] / exponents.sum()))
    return float(np.mean(losses)) if losses else 0.0


def losses(labelled: list[Array], labels: Labels, unlabelled: list[Array]) -> tuple[float, float]:
    """L_s and L_cps of the logits of two networks, without weights."""
    supervised = sum(cross_entropy(logits, labels) for logits in labelled)
    one, other = (logits.argmax(1) for logits in unlabelled)
    return supervised, cross_entropy(unlabelled[0], other) + cross_entropy(unlabelled[1], one)
