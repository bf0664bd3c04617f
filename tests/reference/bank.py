"""PixCon's bank, a pixel at a time: queues by class, and InfoNCE of anchors against all of them."""

import math
from collections import deque

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IGNORED = 255


def admitted(logits: Array, label: npt.NDArray[np.int64], rule: str, threshold: float) -> npt.NDArray[np.int64]:
    """Under which class each pixel enters, [N, h, w]; 255 where it does not."""
    classes = np.full_like(label, IGNORED)
    for n, y, x in np.ndindex(*label.shape):
        scores = np.exp(logits[n, :, y, x] - logits[n, :, y, x].max())
        predicted, confidence = int(scores.argmax()), scores.max() / scores.sum()
        own = int(label[n, y, x])
        if own == IGNORED:
            continue
        enters = {"labelled": True, "labelled_correct": predicted == own, "confident": confidence >= threshold}[rule]
        if enters:
            classes[n, y, x] = predicted if rule == "confident" else own
    return classes


def chosen(
    representations: Array, classes: npt.NDArray[np.int64], order: Array, num_classes: int, most: int
) -> dict[int, list[Array]]:
    """Unit vectors of each class's pixels, in the order of the draws, `most` at most."""
    picked = {}
    for class_ in range(num_classes):
        places = [place for place in np.ndindex(*classes.shape) if classes[place] == class_]
        places.sort(key=lambda place: order[place])
        vectors = [representations[n, :, y, x] for n, y, x in places[:most]]
        picked[class_] = [vector / np.linalg.norm(vector) for vector in vectors]
    return picked


class Queues:
    """A queue of unit vectors for each class, of which the oldest leave."""

    def __init__(self, num_classes: int, size: int) -> None:
        self.of_class = [deque[Array](maxlen=size) for _ in range(num_classes)]

    def put(self, entries: dict[int, list[Array]]) -> None:
        for class_, vectors in entries.items():
            self.of_class[class_].extend(vectors)

    def loss(self, anchors: list[tuple[int, Array]], temperature: float) -> float:
        """Mean over the anchors of whose class a queue holds something."""
        values = []
        for class_, anchor in anchors:
            weights = [[math.exp(anchor @ other / temperature) for other in queue] for queue in self.of_class]
            if weights[class_]:
                values.append(-math.log(sum(weights[class_]) / sum(map(sum, weights))))
        return sum(values) / len(values) if values else 0.0
