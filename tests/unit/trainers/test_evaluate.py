"""Intersection over union in closed form, and evaluation over a data set."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.tiny import tiny_config
from torch import Tensor, nn

from trainers.evaluate import confusion_matrix, evaluate, iou_scores
from trainers.local_run import LocalRun
from trainers.models.heads import Dense


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


@settings(max_examples=50, deadline=None)
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


class Stripes:
    """Images whose brightness tells the class of every pixel; the masks ignore the last row."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.fetched: list[int] = []

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(self.count))

    def __len__(self) -> int:
        return self.count

    def fetch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        self.fetched += indices
        label = torch.tensor([index % 3 for index in indices], dtype=torch.uint8).view(-1, 1, 1).repeat(1, 16, 16)
        masks = label.clone()
        masks[:, -1] = 255
        return label.unsqueeze(1).repeat(1, 3, 1, 1), masks


class Reader(nn.Module):
    """Predicts the brightness, but takes class 2 for class 1."""

    def forward(self, images: Tensor) -> Dense:
        label = (images[:, 0, ::4, ::4] * 255).round().long().clamp(max=1)
        return Dense(torch.eye(11)[label].permute(0, 3, 1, 2), torch.zeros(len(images), 16, 4, 4))


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_every_image_is_counted_once_whatever_the_batch(batch: int) -> None:
    source = Stripes(7)
    confusion = confusion_matrix(Reader(), source, tiny_config({"schedule.evaluation_batch": batch}), LocalRun())
    assert source.fetched == list(range(7))
    expected = torch.zeros(11, 11, dtype=torch.int64)
    expected[0, 0], expected[1, 1], expected[2, 1] = 3 * 240, 2 * 240, 2 * 240  # 16 x 15 pixels are not ignored
    assert torch.equal(confusion, expected)


def test_classes_that_do_not_occur_are_left_out_of_the_report() -> None:
    metrics = evaluate(Reader(), Stripes(7), tiny_config(), LocalRun(), "dev")
    # Class k of the digits is named k - 1, class 0 is the background.
    assert metrics == pytest.approx({"dev/miou": 0.5, "dev/iou/background": 1.0, "dev/iou/0": 0.5, "dev/iou/1": 0.0})


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_a_model_in_the_mode_it_was_in(training: bool) -> None:
    model = Reader().train(training)
    confusion_matrix(model, Stripes(1), tiny_config(), LocalRun())
    assert model.training is training
