"""Intersection over union in closed form, and counts against torchmetrics and plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_confusion_matrix

from trainers.scores import count_classes, count_pairs, iou_scores


@pytest.mark.parametrize(
    ("confusion", "iou", "miou"),
    [
        ([[5, 0], [0, 3]], [1.0, 1.0], 1.0),
        ([[0, 4], [4, 0]], [0.0, 0.0], 0.0),
        ([[3, 1], [2, 4]], [3 / 6, 4 / 7], (3 / 6 + 4 / 7) / 2),
        ([[4, 0, 0], [4, 0, 0], [0, 0, 0]], [0.5, 0.0, math.nan], 0.25),
        ([[0, 0], [0, 0]], [math.nan, math.nan], 0.0),
    ],
    ids=["all right", "all wrong", "some right", "one class absent", "nothing to count"],
)
def test_scores_are_hits_by_union_and_their_mean_over_the_classes_that_occur(
    confusion: list[list[int]], iou: list[float], miou: float
) -> None:
    scores = iou_scores(torch.tensor(confusion))
    assert scores.iou.tolist() == pytest.approx(iou, nan_ok=True)
    assert scores.miou == pytest.approx(miou)


@settings(max_examples=50)
@given(data=st.data(), classes=st.integers(1, 6))
def test_permuting_the_classes_permutes_the_scores_and_keeps_the_mean(data: st.DataObject, classes: int) -> None:
    count = st.integers(0, 10**9)
    confusion = torch.tensor(
        data.draw(st.lists(st.lists(count, min_size=classes, max_size=classes), min_size=classes, max_size=classes))
    )
    order = torch.tensor(data.draw(st.permutations(range(classes))))
    one, other = iou_scores(confusion), iou_scores(confusion[order][:, order])
    assert other.iou.tolist() == pytest.approx(one.iou[order].tolist(), nan_ok=True)
    assert other.miou == pytest.approx(one.miou)
    assert 0.0 <= one.miou <= 1.0


@pytest.mark.parametrize("num_classes", [2, 21, 171])
def test_pairs_are_counted_as_torchmetrics_does(num_classes: int) -> None:
    draws = torch.Generator().manual_seed(num_classes)
    truth = torch.randint(num_classes, (2, 40, 50), generator=draws)
    truth[torch.rand(truth.shape, generator=draws) < 0.1] = 255
    label = torch.randint(num_classes, (2, 40, 50), generator=draws)
    expected = multiclass_confusion_matrix(label, truth, num_classes, ignore_index=255)
    assert torch.equal(count_pairs(truth, label, num_classes), expected)


def test_pairs_of_a_pixel_without_a_label_are_not_counted() -> None:
    truth, label = torch.tensor([0, 0, 1, 255]), torch.tensor([0, 255, 255, 1])
    assert count_pairs(truth, label, 2).tolist() == [[1, 0], [0, 0]]


def test_classes_are_counted_and_ignored_pixels_are_not() -> None:
    label = torch.tensor([[0, 2, 2], [255, 2, 255]])
    assert count_classes(label, 4).tolist() == [1, 0, 3, 0]
