"""U2PL's choice of pixels, a pixel at a time, and its InfoNCE an anchor at a time."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
IGNORED = 255


def entropies(logits: Array) -> Array:
    """Of each pixel of logits [N, K, H, W], in nats."""
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    probs = exponents / exponents.sum(1, keepdims=True)
    return -np.where(probs > 0, probs * np.log(np.where(probs > 0, probs, 1.0)), 0.0).sum(1)


def below_percentile(entropy: Array, labels: Labels, percent: float) -> Mask:
    """Pseudo-labelled pixels whose entropy is below the percentile of those of all of them."""
    counted = labels != IGNORED
    return counted & (entropy < np.percentile(entropy[counted], percent))


def negative_mask(probs: Array, labels: Labels, unsure: Mask, low_rank: int, high_rank: int) -> Mask:
    """Of which classes [K] each pixel of [N + U, K, h, w] is a negative; the first N images are labelled."""
    mask = np.zeros(probs.shape, dtype=bool)
    for n, y, x in np.ndindex(probs.shape[0], *probs.shape[2:]):
        likely_first = sorted(range(probs.shape[1]), key=lambda class_: -probs[n, class_, y, x])
        for rank, class_ in enumerate(likely_first):
            if n < len(labels):
                own = labels[n, y, x]
                mask[n, class_, y, x] = own not in (IGNORED, class_) and rank < low_rank
            else:
                mask[n, class_, y, x] = unsure[n - len(labels), y, x] and low_rank <= rank < high_rank
    return mask


def anchor_loss(anchor: Array, positive: Array, negatives: Array, temperature: float) -> float:
    """-log of the positive's share; vectors of any length, negatives [M, D]."""

    def cosine(other: Array) -> float:
        return float(anchor @ other / (np.linalg.norm(anchor) * np.linalg.norm(other)))

    scores = np.exp(np.array([cosine(positive), *(cosine(other) for other in negatives)]) / temperature)
    return float(-np.log(scores[0] / scores.sum()))
