"""Evaluation over a data set: whole images and sliding windows, each image once and at its own size."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.quality import window_mean
from reference.tiny import differences, tiny_config
from torch import Tensor, nn

from trainers.config import TrainConfig
from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import upsample
from trainers.data.source import Samples
from trainers.data.splits import Splits, open_splits
from trainers.errors import DivergedError
from trainers.evaluate import confusion_matrix, evaluate, evaluate_state, predictions
from trainers.local_run import LocalRun
from trainers.models.build import build_model
from trainers.models.heads import Dense
from trainers.state import TrainState
from trainers.windows import window_starts


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

    def fetch(self, indices: Sequence[int]) -> Samples:
        self.fetched += indices
        label = torch.tensor([index % 3 for index in indices], dtype=torch.uint8).view(-1, 1, 1).repeat(1, 16, 16)
        masks = label.clone()
        masks[:, -1] = 255
        sizes = torch.tensor([[16, 16]]).repeat(len(indices), 1)
        return Samples(label.unsqueeze(1).repeat(1, 3, 1, 1), masks, sizes)


class Reader(nn.Module):
    """Predicts the brightness, but takes class 2 for class 1."""

    def forward(self, images: Tensor) -> Dense:
        label = (images[:, 0, ::4, ::4] * 255).round().long().clamp(max=1)
        return Dense(torch.eye(11)[label].permute(0, 3, 1, 2), torch.zeros(len(images), 16, 4, 4))


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_every_image_is_counted_once_whatever_the_batch(batch: int) -> None:
    source = Stripes(7)
    confusion = confusion_matrix(Reader(), source, tiny_config({"evaluation.batch": batch}), LocalRun())
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


class Uneven:
    """Noise of three sizes; the labels are noise too, but the padding has class 1, which nobody may count."""

    SIZES = ((24, 36), (17, 30), (24, 36), (16, 21), (17, 30))

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(5)
        self.images = [torch.randint(256, (3, *size), dtype=torch.uint8, generator=draws) for size in self.SIZES]
        self.labels = [torch.randint(11, size, dtype=torch.uint8, generator=draws) for size in self.SIZES]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.SIZES)

    def fetch(self, indices: Sequence[int]) -> Samples:
        sizes = torch.tensor([self.SIZES[index] for index in indices])
        height, width = sizes.amax(0).tolist()
        images = torch.full((len(indices), 3, height, width), 77, dtype=torch.uint8)
        labels = torch.ones(len(indices), height, width, dtype=torch.uint8)
        for row, index in enumerate(indices):
            high, wide = self.SIZES[index]
            images[row, :, :high, :wide], labels[row, :high, :wide] = self.images[index], self.labels[index]
        return Samples(images, labels, sizes)


def decided(config: TrainConfig) -> nn.Module:
    """An untrained network that is made to predict several classes."""
    model = build_model(config.model, config.num_classes, 3, torch.device("cpu")).eval()
    with torch.no_grad():
        model.heads.segment[1].weight.mul_(100.0)
    return model


MODES = {
    "whole": {},
    "sliding": {"evaluation.mode": "sliding", "evaluation.window": (16, 16), "evaluation.overlap": 0.3},
}


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("mode", MODES)
def test_images_of_other_sizes_in_a_batch_change_no_prediction(mode: str, batch: int) -> None:
    source = Uneven()
    config = tiny_config({**MODES[mode], "evaluation.batch": batch})
    model = decided(config)
    confusion = confusion_matrix(model, source, config, LocalRun(device=torch.device("cpu")))
    expected = torch.zeros(11, 11, dtype=torch.int64)
    with torch.no_grad():
        for image, label in zip(source.images, source.labels, strict=True):
            (alone,) = predictions(model, image.unsqueeze(0) / 255, config)
            assert alone.shape == label.shape
            for truth, predicted in zip(label.flatten().tolist(), alone.flatten().tolist(), strict=True):
                expected[truth, predicted] += 1
    assert int((expected.sum(0) > 0).sum()) > 1
    # A convolution of two images may round other than one of each: a pixel on the border of two classes may turn.
    assert (confusion.sum(1) - expected.sum(1)).abs().max() == 0
    assert (confusion - expected).abs().sum() <= 4


@pytest.mark.parametrize(("batch", "window"), [(1, (16, 16)), (3, (16, 24)), (100, (28, 16))])
def test_sliding_windows_average_the_probabilities_of_every_window_that_sees_a_pixel(
    batch: int, window: tuple[int, int]
) -> None:
    sliding = {"evaluation.mode": "sliding", "evaluation.window": window, "evaluation.overlap": 0.4}
    config = tiny_config({**sliding, "evaluation.batch": batch})
    model = decided(config)
    image = torch.rand(3, 27, 42, generator=torch.Generator().manual_seed(1))

    def probs(part: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(part).unsqueeze(0)
        return upsample(model(images).logits, images.shape[-2:]).softmax(dim=1)[0].double().numpy()

    # By hand for 27 x 42: stride at most 60 % of 16 is 9, of 24 is 14; one window covers 27 rows of 28.
    rows = [0] if window[0] == 28 else [0, 5, 11]
    columns = {16: [0, 8, 17, 26], 24: [0, 9, 18]}[window[1]]
    with torch.no_grad():
        (label,) = predictions(model, image.unsqueeze(0), config)
        mean = window_mean(probs, image.numpy(), window, (rows, columns))
    assert len(np.unique(mean.argmax(0))) > 1
    taken = np.take_along_axis(mean, label.numpy()[None], axis=0)[0]
    assert np.allclose(taken, mean.max(0), atol=1e-5)  # float32 sums of at most nine probabilities; else either may win


@pytest.mark.parametrize("window", [(24, 36), (28, 64), (24, 40)])
def test_a_window_as_large_as_the_image_sees_what_the_whole_image_shows(window: tuple[int, int]) -> None:
    config = tiny_config({"evaluation.mode": "sliding", "evaluation.window": window})
    model = decided(config)
    images = torch.rand(2, 3, 24, 36, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        sliding = list(predictions(model, images, config))
        whole = [label for image in images for label in predictions(model, image.unsqueeze(0), tiny_config())]
    assert all(torch.equal(one, other) for one, other in zip(sliding, whole, strict=True))


@settings(max_examples=200)
@given(length=st.integers(1, 3000), window=st.integers(16, 1024), overlap=st.floats(0, 0.95))
def test_windows_cover_a_side_evenly_with_the_overlap_asked_for_and_none_too_many(
    length: int, window: int, overlap: float
) -> None:
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0
    if length <= window:
        assert starts == [0]
        return
    assert starts[-1] + window == length
    moves = [after - before for before, after in pairwise(starts)]
    assert max(moves) - min(moves) <= 1
    assert max(moves) <= max(1, window * (1 - overlap) + 1e-5)
    fewer = len(moves) - 1  # as many moves would leave a gap or too little overlap
    assert fewer == 0 or (length - window) / fewer > window * (1 - overlap) - 1


@pytest.mark.parametrize(
    ("length", "window", "overlap", "starts"),
    [
        (1024, 768, 1 / 3, [0, 256]),
        (2048, 768, 1 / 3, [0, 426, 853, 1280]),
        (20, 10, 0.9, list(range(11))),
        (20, 10, 0.0, [0, 10]),
    ],
    ids=["rows of Cityscapes", "its columns", "one pixel a move", "no overlap"],
)
def test_windows_start_where_they_do_by_hand(length: int, window: int, overlap: float, starts: list[int]) -> None:
    assert window_starts(length, window, overlap) == starts


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (33, 19), (50, 63)])
@pytest.mark.parametrize("arch", ["tiny", "deeplabv3plus"])
def test_networks_take_any_size_and_label_every_pixel(arch: str, size: tuple[int, int]) -> None:
    small = {"model.backbone": "resnet18", "model.output_stride": 8} if arch != "tiny" else {}
    config = tiny_config({"model.arch": arch, **small})
    model = build_model(config.model, config.num_classes, 0, torch.device("cpu")).eval()
    with torch.no_grad():
        (label,) = predictions(model, torch.rand(1, 3, *size), config)
    assert label.shape == size


def state_of(config: TrainConfig) -> TrainState:
    """With two prototypes, that have turned by 60 degrees since the last report."""
    state = TrainState(config, LocalRun(device=torch.device("cpu")))
    values = torch.zeros(config.num_classes, config.model.representation_dim)
    values[0, 0] = values[1, 1] = 1.0
    seen = values.any(dim=1)
    state.prototypes_at_report = Prototypes(values, seen)
    turned = 0.5 * values + math.sqrt(0.75) * values.roll(2, dims=1)
    state.prototypes = Prototypes(turned, seen)
    return state


def reported(config: TrainConfig, state: TrainState | None = None, splits: Splits | None = None) -> dict[str, float]:
    run = LocalRun(device=torch.device("cpu"))
    return evaluate_state(state or state_of(config), splits or open_splits(config.data), config, run)


def families(metrics: Mapping[str, float]) -> set[str]:
    return {name.split("/")[0] for name in metrics}


def test_a_report_measures_drift_from_the_report_before() -> None:
    assert reported(tiny_config())["health/prototype_drift"] == pytest.approx(0.5)


def test_a_report_says_how_good_the_labels_and_how_healthy_the_state_are() -> None:
    metrics = reported(tiny_config())
    assert families(metrics) == {"dev", "quality", "predicted", "kept", "health"}
    assert metrics["health/classes_without_prototype"] == 9.0
    assert metrics["health/teacher_student_gap"] == 0.0


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_both_networks_are_scored_where_it_is_asked(network: str) -> None:
    config = tiny_config({"evaluation.network": network, "evaluation.both": True})
    state = state_of(config)
    last = state.student.heads.segment[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.zeros_(last.weight)
    last.bias.data = torch.arange(float(config.num_classes))  # the student sees the last class everywhere
    metrics = reported(config, state)
    of_student = "dev" if network == "student" else "other"
    scores = {name: value for name, value in metrics.items() if name.startswith(f"{of_student}/iou/")}
    assert [name for name, value in scores.items() if value > 0] == [f"{of_student}/iou/{config.data.classes[-1]}"]
    assert metrics["dev/miou"] != metrics["other/miou"]


def test_a_report_leaves_a_teacher_that_normalises_by_the_batch_as_it_was() -> None:
    config = tiny_config({"ema.teacher_norm": "train"})
    state = state_of(config)
    before = {name: value.clone() for name, value in state.teacher.state_dict().items()}
    reported(config, state)
    assert state.teacher.training
    assert differences(before, state.teacher.state_dict()) == []


def test_a_report_of_a_method_without_prototypes_says_nothing_of_them() -> None:
    metrics = reported(tiny_config({"css.label_strategy": "logit", "loss.lambda_c": 0.0}))
    assert [name for name in metrics if "prototype" in name or "representation" in name or "mix" in name] == []


def test_without_quality_images_no_unlabelled_image_is_read() -> None:
    config = tiny_config({"evaluation.quality_images": 0})
    unlabelled = Stripes(5)
    metrics = reported(config, splits=open_splits(config.data)._replace(unlabelled=unlabelled))
    assert unlabelled.fetched == []
    assert families(metrics) == {"dev", "health"}


def test_where_nothing_is_unlabelled_the_rest_is_reported() -> None:
    config = tiny_config()
    metrics = reported(config, splits=open_splits(config.data)._replace(unlabelled=Stripes(0)))
    assert families(metrics) == {"dev", "health"}


def test_a_parameter_that_is_not_finite_ends_training() -> None:
    config = tiny_config()
    state = state_of(config)
    with torch.no_grad():
        state.student.heads.segment[1].bias[0] = math.inf
    with pytest.raises(DivergedError, match="training diverged by step 0: health/teacher_student_gap not finite"):
        reported(config, state)
