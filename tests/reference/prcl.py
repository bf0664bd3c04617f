"""PRCL's equations (arXiv 2210.14670 and its code), a number or an anchor at a time."""

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Gaussian = tuple[Array, Array]
"""Mean of any length, and variances, [D] each."""


def unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)


def score(one: Gaussian, other: Gaussian) -> float:
    """The mutual likelihood score of two Gaussians, whose means are taken at length 1."""
    terms = []
    for mean, variance, mean_, variance_ in zip(unit(one[0]), one[1], unit(other[0]), other[1], strict=True):
        terms.append((mean - mean_) ** 2 / (variance + variance_) + math.log(variance + variance_))
    return -0.5 * sum(terms) / len(terms)


def prototype(members: list[Gaussian]) -> Gaussian:
    """The product of the densities of a class's pixels, but for its scale."""
    variance = 1 / sum(1 / variance for _, variance in members)
    return np.asarray(sum(variance / own * mean for mean, own in members)), np.asarray(variance)


def class_probabilities(class_: int, prototypes: dict[int, Gaussian], temperature: float) -> dict[int, float]:
    """Of each other class to give a negative."""
    weights = {
        other: math.exp(score(prototypes[class_], prototypes[other]) / temperature)
        for other in sorted(prototypes)
        if other != class_
    }
    return {other: weight / sum(weights.values()) for other, weight in weights.items()}


def anchor_loss(anchor: Gaussian, positive: Gaussian, negatives: list[Gaussian], temperature: float) -> float:
    """-log of the positive's share."""
    own, *others = (math.exp(score(anchor, other) / temperature) for other in (positive, *negatives))
    return -math.log(own / (own + sum(others)))
