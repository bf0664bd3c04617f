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


def logit_probs(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Probabilities [K, H, W] of the classes in the space of the logits [K, h, w] of an image (Eq. 1)."""
    full = upsampled(logits, size)
    for place in np.ndindex(*size):
        full[:, *place] = softmax(full[:, *place].tolist())
    return full


def representation_probs(
    representations: np.ndarray, prototypes: dict[int, np.ndarray], temperature: float, size: tuple[int, int]
) -> np.ndarray:
    """Probabilities [C, H, W] of the classes seen, in ascending order, from [D, h, w] of an image (Eq. 4, 5)."""
    cosines = np.zeros((len(prototypes), *representations.shape[1:]))
    for y, x in np.ndindex(*representations.shape[1:]):
        for index, class_ in enumerate(sorted(prototypes)):
            cosines[index, y, x] = cosine(representations[:, y, x], prototypes[class_])
    full = upsampled(cosines, size)
    for place in np.ndindex(*size):
        full[:, *place] = softmax((full[:, *place] / temperature).tolist())
    return full
