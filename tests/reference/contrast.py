"""Eq. 9, one anchor at a time."""

import itertools
import math
from typing import NamedTuple

import numpy as np
from reference.prototypes import cosine, pixels

Pixel = tuple[int, int, int]


class Case(NamedTuple):
    """Everything that the loss depends on but chance."""

    representations: np.ndarray
    """[N, D, h, w]."""
    label: np.ndarray
    """[N, h, w], 255 where a pixel is not valid."""
    hard: np.ndarray
    """[N, h, w] bool."""
    prototypes: dict[int, np.ndarray]
    """Of the classes seen."""
    temperature: float


def sampled_losses(case: Case, queries: int, negatives: int, rng: np.random.Generator) -> dict[int, list[float]]:
    """The losses of `queries` anchors of each class, each with negatives of its own."""
    losses: dict[int, list[float]] = {}
    for class_ in sorted(case.prototypes):
        anchors, others = hard_pixels(case, class_), other_classes(case, class_)
        if not anchors or not others:
            continue
        probabilities = class_probabilities(case, class_, others)
        losses[class_] = []
        for _ in range(queries):
            anchor = anchors[rng.integers(len(anchors))]
            drawn = []
            for _ in range(negatives):
                members = class_pixels(case, others[rng.choice(len(others), p=probabilities)])
                drawn.append(members[rng.integers(len(members))])
            losses[class_].append(info_nce(case, class_, anchor, drawn))
    return losses


def expected_losses(case: Case, negatives: int) -> dict[int, float]:
    """The mean over every anchor and every choice of negatives, each weighted by its probability."""
    losses: dict[int, float] = {}
    for class_ in sorted(case.prototypes):
        anchors, others = hard_pixels(case, class_), other_classes(case, class_)
        if not anchors or not others:
            continue
        choices = []
        for other, probability in zip(others, class_probabilities(case, class_, others), strict=True):
            members = class_pixels(case, other)
            choices += [(pixel, probability / len(members)) for pixel in members]
        losses[class_] = 0.0
        for anchor in anchors:
            for drawn in itertools.product(choices, repeat=negatives):
                probability = math.prod(weight for _, weight in drawn) / len(anchors)
                losses[class_] += probability * info_nce(case, class_, anchor, [pixel for pixel, _ in drawn])
    return losses


def info_nce(case: Case, class_: int, anchor: Pixel, negatives: list[Pixel]) -> float:
    """Minus the log of the positive's share."""
    z = at(case, anchor)
    positive = math.exp(cosine(z, case.prototypes[class_]) / case.temperature)
    against = sum(math.exp(cosine(z, at(case, pixel)) / case.temperature) for pixel in negatives)
    return -math.log(positive / (positive + against))


def class_probabilities(case: Case, class_: int, others: list[int]) -> list[float]:
    """Of each other class to give a negative: the nearer its prototype, the likelier."""
    weights = [math.exp(cosine(case.prototypes[class_], case.prototypes[other]) / case.temperature) for other in others]
    return [weight / sum(weights) for weight in weights]


def other_classes(case: Case, class_: int) -> list[int]:
    return [other for other in sorted(case.prototypes) if other != class_ and class_pixels(case, other)]


def class_pixels(case: Case, class_: int) -> list[Pixel]:
    return [pixel for pixel in pixels(case.label) if case.label[pixel] == class_]


def hard_pixels(case: Case, class_: int) -> list[Pixel]:
    return [pixel for pixel in class_pixels(case, class_) if case.hard[pixel]]


def at(case: Case, pixel: Pixel) -> np.ndarray:
    n, y, x = pixel
    return case.representations[n, :, y, x]
