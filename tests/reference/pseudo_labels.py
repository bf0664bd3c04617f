"""Eq. 1, 4 and 5, one pixel at a time."""

import math

import numpy as np

from reference.prototypes import cosine


def upsampled(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[C, h, w] to [C, H, W], bilinear, the corners of both grids on each other."""
    _, rows, columns = values.shape
    out = np.zeros((len(values), *size))
    for y, x in np.ndindex(*size):
        at_y, at_x = y * (rows - 1) / (size[0] - 1), x * (columns - 1) / (size[1] - 1)
        top, left = min(int(at_y), rows - 2), min(int(at_x), columns - 2)
        down, right = at_y - top, at_x - left
        out[:, y, x] = (
            (1 - down) * (1 - right) * values[:, top, left]
            + (1 - down) * right * values[:, top, left + 1]
            + down * (1 - right) * values[:, top + 1, left]
            + down * right * values[:, top + 1, left + 1]
        )
    return out


def softmax(values: list[float]) -> list[float]:
    exps = [math.exp(value - max(values)) for value in values]
    return [value / sum(exps) for value in exps]


def logit_labels(logits: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 1 for one image: labels [H, W] and confidences [H, W] from logits [K, h, w]."""
    label, confidence = np.zeros(size, dtype=np.int64), np.zeros(size)
    full = upsampled(logits, size)
    for y, x in np.ndindex(*size):
        probs = softmax(full[:, y, x].tolist())
        label[y, x] = probs.index(max(probs))
        confidence[y, x] = max(probs)
    return label, confidence


def representation_labels(
    representations: np.ndarray, prototypes: dict[int, np.ndarray], temperature: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 4 and 5 for one image: labels [H, W] and indicators [H, W] from [D, h, w], over the classes seen."""
    classes = sorted(prototypes)
    cosines = np.zeros((len(classes), *representations.shape[1:]))
    for y, x in np.ndindex(*representations.shape[1:]):
        for index, class_ in enumerate(classes):
            cosines[index, y, x] = cosine(representations[:, y, x], prototypes[class_])
    full = upsampled(cosines, size)
    label, indicator = np.zeros(size, dtype=np.int64), np.zeros(size)
    for y, x in np.ndindex(*size):
        probs = softmax((full[:, y, x] / temperature).tolist())
        label[y, x] = classes[probs.index(max(probs))]
        indicator[y, x] = max(probs)
    return label, indicator
