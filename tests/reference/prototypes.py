"""Eq. 2 and 3, one pixel at a time. All arrays are NumPy, float64 where they hold numbers."""

from collections.abc import Iterator

import numpy as np

IGNORED = 255


def pixels(label: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Every place (image, row, column)."""
    yield from np.ndindex(*label.shape)


def class_means(representations: np.ndarray, label: np.ndarray, num_classes: int) -> dict[int, np.ndarray]:
    """Mean representation [D] of each class that has pixels (Eq. 2), from [N, D, h, w] and [N, h, w]."""
    means = {}
    for class_ in range(num_classes):
        members = [representations[n, :, y, x] for n, y, x in pixels(label) if label[n, y, x] == class_]
        if members:
            means[class_] = sum(members) / len(members)
    return means


def moved(prototypes: dict[int, np.ndarray], means: dict[int, np.ndarray], momentum: float) -> dict[int, np.ndarray]:
    """Prototypes of the classes seen so far (Eq. 3); a first mean is taken as it is."""
    after = dict(prototypes)
    for class_, mean in means.items():
        after[class_] = momentum * prototypes[class_] + (1 - momentum) * mean if class_ in prototypes else mean
    return after


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of the angle between two vectors."""
    return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))
