"""Losses of Hung et al. (arXiv 1802.07934), a pixel at a time."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
IGNORED = 255


def _cross_entropy(logits: Iterable[float], is_label: bool) -> list[float]:
    probs = [1 / (1 + np.exp(-logit)) for logit in logits]
    return [-np.log(prob if is_label else 1 - prob) for prob in probs]


def adversarial(labelled: Array, labels: Labels, unlabelled: Array) -> tuple[float, float]:
    """L_adv of a discriminator's logits [N, H, W] of the student's maps: where there is a label, and everywhere."""
    known = [labelled[at] for at in np.ndindex(*labels.shape) if labels[at] != IGNORED]
    return tuple(float(np.mean(_cross_entropy(logits, True))) for logits in (known, unlabelled.flatten()))  # type: ignore[return-value]


def discriminator(labelled: Array, labels: Labels, unlabelled: Array, truth: Array) -> float:
    """L_D: half of the mean over the student's maps, and half of that over the labels."""
    places = [at for at in np.ndindex(*labels.shape) if labels[at] != IGNORED]
    false = _cross_entropy([*(labelled[at] for at in places), *unlabelled.flatten()], False)
    return float(np.mean(false) + np.mean(_cross_entropy([truth[at] for at in places], True))) / 2


def semi(logits: Array, judged: Array, threshold: float) -> float:
    """L_semi of logits [N, K, H, W]: to their own classes, where the discriminator says at least `threshold`."""
    losses = []
    for n, y, x in np.ndindex(*judged.shape):
        if 1 / (1 + np.exp(-judged[n, y, x])) >= threshold:
            exponents = np.exp(logits[n, :, y, x] - logits[n, :, y, x].max())
            losses.append(-np.log(exponents.max() / exponents.sum()))
    return float(np.mean(losses)) if losses else 0.0
