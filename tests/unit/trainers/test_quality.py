"""Quality of pseudo-labels against a slow reference, what of it is reported, and when a collapse is seen."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.golden import golden
from reference.quality import entropy, quality
from reference.tiny import tiny_config
from torch import Tensor, nn

from trainers.config import CssConfig, EvaluationConfig, FolderData, ModelConfig, ThresholdsConfig, TrainConfig
from trainers.css.prototypes import Prototypes
from trainers.data.source import Samples
from trainers.loader import rank_groups
from trainers.local_run import LocalRun
from trainers.models.heads import Dense
from trainers.quality import Counts, count_pseudo_labels, evenly_spaced, quality_metrics

CPU = torch.device("cpu")


class Rank(LocalRun):
    """A rank that is alone in this process, but says otherwise."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__(device=CPU)
        self.rank, self.world_size = rank, world_size


class Numbered:
    """Images that are their index, with the truth that was given."""

    def __init__(self, truth: Tensor) -> None:
        self.truth = truth.to(torch.uint8)
        self.fetched: list[int] = []

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(len(self)))

    def __len__(self) -> int:
        return len(self.truth)

    def fetch(self, indices: Sequence[int]) -> Samples:
        self.fetched += indices
        labels = self.truth[list(indices)]
        images = torch.tensor(list(indices), dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, *labels.shape[1:])
        return Samples(images, labels, torch.tensor(labels.shape[1:]).repeat(len(labels), 1))


class Script(nn.Module):
    """Says of image i what was prepared for it."""

    def __init__(self, logits: Tensor, representations: Tensor) -> None:
        super().__init__()
        self.logits, self.representations = logits, representations

    def forward(self, images: Tensor) -> Dense:
        index = (images[:, 0, 0, 0] * 255).round().long()
        return Dense(self.logits[index], self.representations[index])


def measured(
    teacher: nn.Module,
    prototypes: Prototypes,
    source: Numbered,
    config: TrainConfig,
    warming_up: bool = False,
    with_prototypes: bool = True,
) -> dict[str, float]:
    run = LocalRun(device=CPU)
    return quality_metrics(
        count_pseudo_labels(teacher, prototypes, source, config, run, warming_up), config, with_prototypes
    )


def pick(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


NAMES = tuple(f"class{index}" for index in range(21))


def golden_config(temperature: float, delta_u: float) -> TrainConfig:
    return TrainConfig(
        data=FolderData(root=Path("nowhere"), classes=NAMES, height=48, width=48),
        model=ModelConfig(representation_dim=32),
        css=CssConfig(indicator_temperature=temperature),
        thresholds=ThresholdsConfig(delta_u=delta_u, delta_w=0.05, delta_s=0.12),
        evaluation=EvaluationConfig(batch=1),
    )


@pytest.mark.parametrize("temperature", ["0.5", "0.1"])
def test_published_labels_have_the_quality_that_the_slow_reference_finds(temperature: str) -> None:
    data = golden()
    theirs = {name: data[f"pseudo_t{temperature}_{name}"] for name in ("label_cls", "label_rep", "conf_cls")}
    delta_u = 0.61
    assert (theirs["conf_cls"] - delta_u).abs().min() > 1e-5  # so that rounding moves no pixel over it
    # A truth that both spaces know something of: theirs where drawn, noise elsewhere, and some of it ignored.
    draws = torch.Generator().manual_seed(0)
    chance = torch.rand(theirs["label_cls"].shape, generator=draws)
    truth = torch.where(chance < 0.5, theirs["label_cls"], theirs["label_rep"])
    truth = torch.where(chance > 0.8, torch.randint(21, truth.shape, generator=draws), truth)
    truth = torch.where((chance > 0.3) & (chance < 0.35), 255, truth)

    prototypes = Prototypes(data["pseudo_prototypes"], torch.ones(21, dtype=torch.bool))
    teacher = Script(data["pseudo_logits"], data["pseudo_rep"])
    config = golden_config(float(temperature), delta_u)
    metrics = measured(teacher, prototypes, Numbered(truth), config)
    expected = quality(
        truth.numpy(), theirs["label_cls"].numpy(), theirs["label_rep"].numpy(), theirs["conf_cls"].numpy(), delta_u
    )
    assert 0 < expected["quality/confident/share"] < 1
    assert {name: value for name, value in metrics.items() if name.startswith("quality/")} == pytest.approx(expected)
    shares = [(theirs["label_cls"] == index).double().mean().item() for index in range(21)]
    assert metrics["health/predicted_entropy"] == pytest.approx(entropy(shares, 21))


K = 11
DIRECTIONS = Prototypes(torch.eye(K, 16), torch.ones(K, dtype=torch.bool))


def says(logit_label: Tensor, representation_label: Tensor, margin: float | Tensor) -> Script:
    """A teacher that gives each pixel [N, H, W] its labels, in the logits by a margin."""
    logits = torch.eye(K)[logit_label].permute(0, 3, 1, 2) * margin
    return Script(logits, torch.eye(K, 16)[representation_label].permute(0, 3, 1, 2))


LOGIT = torch.tensor([[[0, 0, 0, 0], [1, 1, 2, 2]]])
REPRESENTATION = torch.tensor([[[0, 0, 1, 1], [1, 1, 1, 2]]])
TRUTH = torch.tensor([[[0, 255, 1, 0], [1, 5, 1, 2]]])
SURE = torch.tensor([[[9.0, 9.0, 9.0, 0.1], [9.0, 0.1, 9.0, 9.0]]])
"""Eight pixels. The spaces agree on five of eight, on four of the seven whose truth is known; six are confident."""


def of_eight_pixels(overrides: Mapping[str, Any], **others: Any) -> dict[str, float]:
    config = tiny_config(overrides)
    return measured(says(LOGIT, REPRESENTATION, SURE.unsqueeze(1)), DIRECTIONS, Numbered(TRUTH), config, **others)


def test_quality_of_eight_pixels_is_what_a_hand_counts() -> None:
    assert pick(of_eight_pixels({}), "quality/") == pytest.approx(
        {
            "agreement": 5 / 8,
            # truth -> label: 0-0, 1-0, 0-0, 1-1, 5-1, 1-2, 2-2
            "logit/accuracy": 4 / 7,
            "logit/miou": (2 / 3 + 1 / 4 + 1 / 2 + 0) / 4,
            # truth -> label: 0-0, 1-0, 1-1, 1-2, 2-2
            "confident/accuracy": 3 / 5,
            "confident/miou": (1 / 2 + 1 / 3 + 1 / 2) / 3,
            "confident/share": 5 / 7,
            # truth -> label: 0-0, 1-1, 0-1, 1-1, 5-1, 1-1, 2-2
            "representation/accuracy": 5 / 7,
            "representation/miou": (1 / 2 + 3 / 5 + 1 + 0) / 4,
            # truth -> label: 0-0, 1-1, 5-1, 2-2
            "mix/accuracy": 3 / 4,
            "mix/miou": (1 + 1 / 2 + 1 + 0) / 4,
            "mix/share": 4 / 7,
        }
    )


@pytest.mark.parametrize(
    ("overrides", "warming_up", "kept"),
    [
        ({"css.label_strategy": "mix"}, False, {"background": 2 / 4, "0": 1 / 2, "1": 1 / 2}),
        ({"css.label_strategy": "logit"}, False, {"background": 3 / 4, "0": 1 / 2, "1": 1.0}),
        ({"css.label_strategy": "cross"}, False, {"background": 3 / 4, "0": 1 / 2, "1": 1.0}),
        ({"css.label_strategy": "cross"}, True, {"background": 3 / 4, "0": 1 / 2, "1": 1.0}),
        ({"css.label_strategy": "logit", "loss.lambda_c": 0.0}, False, {"background": 3 / 4, "0": 1 / 2, "1": 1.0}),
        ({"loss.lambda_u": 0.0}, False, {}),
    ],
    ids=["mix", "logit", "cross", "cross in its warm-up", "no prototypes", "no L_u"],
)
def test_of_each_class_the_share_is_told_that_enters_the_unsupervised_loss(
    overrides: Mapping[str, Any], warming_up: bool, kept: Mapping[str, float]
) -> None:
    assert pick(of_eight_pixels(overrides, warming_up=warming_up), "kept/") == pytest.approx(kept)


def test_the_predicted_share_is_told_of_classes_that_the_logits_or_the_truth_name() -> None:
    # Class 5, which is named 4, is in the truth and never predicted: a class that was lost shows as zero.
    assert pick(of_eight_pixels({}), "predicted/") == {"background": 4 / 8, "0": 2 / 8, "1": 2 / 8, "4": 0.0}


def test_before_any_prototype_only_the_logits_are_scored() -> None:
    empty = Prototypes.empty(K, 16)
    teacher = says(LOGIT, REPRESENTATION, SURE.unsqueeze(1))
    metrics = measured(teacher, empty, Numbered(TRUTH), tiny_config(), with_prototypes=False)
    assert {name.split("/")[0] for name in pick(metrics, "quality/")} == {"logit", "confident"}


def test_methods_without_prototypes_have_their_logits_scored() -> None:
    with_them = of_eight_pixels({})
    without = {"css.label_strategy": "logit", "loss.lambda_c": 0.0}
    scores = pick(of_eight_pixels(without, with_prototypes=False), "quality/")
    assert scores == {name: pick(with_them, "quality/")[name] for name in scores}
    assert {name.split("/")[0] for name in scores} == {"logit", "confident"}


def test_without_truth_the_labels_are_not_scored_but_their_shares_are_told() -> None:
    config = tiny_config()
    teacher = says(LOGIT, REPRESENTATION, SURE.unsqueeze(1))
    metrics = measured(teacher, DIRECTIONS, Numbered(torch.full_like(TRUTH, 255)), config)
    assert pick(metrics, "quality/") == {"agreement": 5 / 8}
    assert set(pick(metrics, "predicted/")) == set(pick(metrics, "kept/")) == {"background", "0", "1"}


def test_a_kind_that_keeps_no_pixel_has_a_share_of_zero_and_no_score() -> None:
    apart = says(LOGIT, LOGIT + 3, 0.1)
    metrics = pick(measured(apart, DIRECTIONS, Numbered(TRUTH), tiny_config()), "quality/")
    assert metrics["mix/share"] == metrics["confident/share"] == 0.0
    assert {name.split("/")[0] for name in metrics if "miou" in name} == {"logit", "representation"}


def test_of_no_images_nothing_is_said() -> None:
    assert quality_metrics(Counts.zero(K, CPU), tiny_config(), True) == {}


@pytest.mark.parametrize(
    ("count", "total", "drawn"),
    [(3, 9, [0, 3, 6]), (4, 10, [0, 2, 5, 7]), (5, 3, [0, 1, 2]), (0, 9, []), (3, 0, [])],
)
def test_images_are_drawn_in_even_distances(count: int, total: int, drawn: list[int]) -> None:
    assert evenly_spaced(count, total) == drawn


def test_quality_images_are_seen_once_and_no_others() -> None:
    source = Numbered(torch.zeros(20, 2, 4, dtype=torch.uint8))
    nothing = torch.zeros(20, 2, 4, dtype=torch.int64)
    config = tiny_config({"evaluation.quality_images": 7, "evaluation.batch": 3})
    measured(says(nothing, nothing, 1.0), DIRECTIONS, source, config)
    assert source.fetched == evenly_spaced(7, 20)


def values(groups: Iterable[Any]) -> list[int]:
    return [round(image[0, 0, 0].item() * 255) for group in groups for image in group.images]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_together_see_every_chosen_image_once(world_size: int) -> None:
    chosen = [1, 2, 5, 6, 9]
    source = Numbered(torch.zeros(12, 2, 4))
    shares = [values(rank_groups(source, chosen, 2, Rank(rank, world_size))) for rank in range(world_size)]
    assert sorted(index for indices in shares for index in indices) == chosen
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def leaning(lean: float) -> tuple[Script, Numbered]:
    """A teacher that knows every pixel, by margins of 6 +- 1 in the logits, and adds `lean` to those of class 0."""
    draws = torch.Generator().manual_seed(0)
    truth = torch.randint(K, (8, 16, 16), generator=draws)
    margins = 6 + torch.randn(8, 1, 16, 16, generator=draws)
    teacher = says(truth, truth, margins)
    teacher.logits[:, 0] += lean
    return teacher, Numbered(truth)


@pytest.fixture(scope="module")
def collapse() -> list[dict[str, float]]:
    """25 evaluations of a teacher that leans to class 0 by half a logit more each time, until it names no other."""
    config = tiny_config({"thresholds.delta_u": 0.97})
    return [measured(teacher, DIRECTIONS, source, config) for teacher, source in map(leaning, torch.arange(25) / 2)]


def first_below(runs: Sequence[Mapping[str, float]], name: str, share: float) -> int:
    """The first evaluation at which a metric is below this share of what it was at first."""
    return next(at for at, metrics in enumerate(runs) if metrics[name] < share * runs[0][name])


def test_a_collapse_halves_what_is_kept_of_every_other_class_before_it_shows_in_miou(
    collapse: list[dict[str, float]],
) -> None:
    others = tiny_config().data.classes[1:]
    halved = max(first_below(collapse, f"kept/{name}", 0.5) for name in others)
    # Measured: all have halved at the lean of 3.0, where mIoU is 0.997; it loses its first tenth at 5.0.
    assert collapse[halved]["quality/logit/miou"] > 0.99
    assert first_below(collapse, "quality/logit/miou", 0.9) - halved == 4


def test_a_collapse_nearly_doubles_what_is_kept_of_its_class_before_it_shows_in_miou(
    collapse: list[dict[str, float]],
) -> None:
    # Measured: 0.57 at first, 0.97 at the lean of 1.5, where mIoU is still 1.
    kept = [metrics["kept/background"] for metrics in collapse[:4]]
    assert kept[3] > 1.7 * kept[0]
    assert collapse[3]["quality/logit/miou"] > 0.999


def test_a_collapse_that_is_complete_has_an_entropy_near_zero_though_all_is_confident(
    collapse: list[dict[str, float]],
) -> None:
    assert collapse[0]["health/predicted_entropy"] > 0.99
    assert collapse[-1]["health/predicted_entropy"] < 0.01
    assert collapse[-1]["quality/confident/share"] > 0.99
    assert collapse[-1]["predicted/background"] > 0.99
