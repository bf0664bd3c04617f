"""Two ranks on halves of a batch are one process on the whole."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from ranks import Ranks
from reference.tiny import differences, tiny_config, whole_step
from torch import Tensor, nn

from trainers.config import LossConfig
from trainers.css.contrast import PixelPool, build_pool, contrastive_loss
from trainers.css.prototypes import Prototypes
from trainers.data.splits import open_splits
from trainers.distributed import average_buffers, sum_over_ranks
from trainers.evaluate import confusion_matrix
from trainers.lesson import Place
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.models.build import build_model
from trainers.randomness import generator
from trainers.run import Decision
from trainers.state import TrainState

CPU = torch.device("cpu")
Settings = Mapping[str, Any]


class Trained(NamedTuple):
    state: dict[str, Any]
    reports: list[dict[str, float]]
    """Of rank 0, without times."""


def trained(overrides: Settings, folder: Path | None = None, stop_at: int | None = None) -> Trained:
    reports: list[dict[str, float]] = []

    def listen(metrics: Mapping[str, float]) -> Decision:
        reports.append({name: value for name, value in metrics.items() if not name.startswith("time/")})
        return Decision.STOP if metrics["step"] == stop_at else Decision.CONTINUE

    torch.set_num_threads(1)
    run = LocalRun(folder=folder, device=CPU, listener=listen)
    return Trained(train(tiny_config(overrides), run).state_dict(), reports)


def numbers(state: object, path: str = "") -> dict[str, Tensor]:
    """Every tensor and float of a nested state, by its path."""
    if isinstance(state, Mapping):
        return {name: found for key in state for name, found in numbers(state[key], f"{path}/{key}").items()}
    if isinstance(state, Tensor | float):
        return {path: torch.as_tensor(state)}
    return {}


HALVES = {
    "model.norm": "group",  # statistics of an image, and not of a rank's images
    "loss.lambda_c": 0.0,  # ranks draw anchors of their own
    "schedule.steps": 3,
    "schedule.evaluate_every": 1,
    "schedule.labelled_batch": 2,
}
CASES = {
    "mix": {"css.label_strategy": "mix"},
    "cross": {"css.label_strategy": "cross", "css.cross_warmup": 0.3},
    "student": {"ema.prototype_source": "student", "loss.unsupervised": "image_share", "css.label_strategy": "logit"},
    "classmix": {"augment.strong.mix": "classmix", "css.indicator": "confidence"},
    "supervised": {"loss.lambda_u": 0.0},
}


class Pair(NamedTuple):
    one: Trained
    two: list[Trained]


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, two_ranks: Ranks) -> Pair:
    overrides = HALVES | CASES[request.param]
    return Pair(trained(overrides), two_ranks.call(trained, overrides))


def test_ranks_hold_different_classes_in_these_runs() -> None:
    config = tiny_config(HALVES)
    splits = open_splits(config.data)
    for step in range(3):
        halves = [
            load_batch(splits, config, Place(0, step, rank, 2), CPU).labels.unique().tolist() for rank in range(2)
        ]
        assert set(halves[0]) - set(halves[1])


# The two differ in the order of float32 sums: of gradients over images, of losses over thousands of pixels, and in
# convolutions of other batch sizes. After three steps that stays below 1e-5 in numbers of order one.
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def far_apart(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one.double(), other.double(), **NEAR)


def test_losses_shares_and_scores_are_those_of_one_process(pair: Pair) -> None:
    assert len(pair.two[0].reports) == 3
    for one, two in zip(pair.one.reports, pair.two[0].reports, strict=True):
        # The contrastive loss, of weight zero here, is left out: ranks draw anchors of their own.
        compared = one.keys() - {"train/loss/contrast"}
        assert [name for name in compared if far_apart(torch.tensor(one[name]), torch.tensor(two[name]))] == []


@pytest.mark.parametrize("part", ["student", "teacher", "prototypes", "optimizer"])
def test_the_state_after_three_steps_is_that_of_one_process(pair: Pair, part: str) -> None:
    # The optimizer's momenta are the gradients of the steps.
    one, two = numbers(pair.one.state[part]), numbers(pair.two[0].state[part])
    assert one.keys() == two.keys()
    assert [name for name in one if far_apart(one[name], two[name])] == []


def test_both_ranks_hold_the_same_state_bit_by_bit(pair: Pair) -> None:
    assert differences(pair.two[0].state, pair.two[1].state) == []


def test_with_batch_statistics_and_contrast_both_ranks_hold_the_same_state_bit_by_bit(two_ranks: Ranks) -> None:
    # Of each rank's own batch, so averaging the buffers has something to do.
    one, two = two_ranks.call(trained, {"schedule.steps": 3, "model.norm": "batch"})
    assert differences(one.state, two.state) == []


def test_two_ranks_resume_bit_by_bit(two_ranks: Ranks, tmp_path: Path) -> None:
    overrides = {"schedule.steps": 4, "schedule.evaluate_every": 2}
    whole = two_ranks.call(trained, overrides)
    two_ranks.call(trained, overrides, tmp_path, 2)
    resumed = two_ranks.call(trained, overrides, tmp_path)
    assert [differences(a.state, b.state) for a, b in zip(resumed, whole, strict=True)] == [[], []]


def test_a_decision_to_stop_ends_both_ranks(two_ranks: Ranks) -> None:
    overrides = {"schedule.steps": 4, "schedule.evaluate_every": 1}
    assert [result.state["step"] for result in two_ranks.call(trained, overrides, None, 2)] == [2, 2]


def buffers_of_a_rank(own: float) -> tuple[list[float], list[float], int]:
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(own + torch.distributed.get_rank())
    norm.running_var.fill_(2 * own + torch.distributed.get_rank())
    norm.num_batches_tracked.fill_(7)
    average_buffers(norm, 2)
    return norm.running_mean.tolist(), norm.running_var.tolist(), int(norm.num_batches_tracked)


def test_averaging_buffers_gives_every_rank_their_mean_and_leaves_counters(two_ranks: Ranks) -> None:
    assert two_ranks.call(buffers_of_a_rank, 3.0) == [([3.5, 3.5], [6.5, 6.5], 7)] * 2


def sums_of_a_rank() -> list[Tensor]:
    rank = torch.distributed.get_rank()
    return sum_over_ranks([torch.tensor(2**22 + rank), torch.arange(6).view(2, 3) + rank, torch.tensor(0.5)], 2)


def test_sums_over_ranks_keep_shapes_and_count_exactly(two_ranks: Ranks) -> None:
    for count, matrix, number in two_ranks.call(sums_of_a_rank):
        assert count.item() == 2**23 + 1
        assert matrix.tolist() == [[1, 3, 5], [7, 9, 11]]
        assert number.item() == 1.0


K, D = 5, 6
LOSS = LossConfig(queries=16, negatives=8, negative_groups=2)


class Half(NamedTuple):
    """What a rank knows when it computes its part of the contrastive loss."""

    representations: Tensor
    pool: PixelPool
    prototypes: Prototypes


def half(rank: int) -> Half:
    draws = torch.Generator().manual_seed(0)
    label = torch.randint(0, K - 1, (2, 4, 4), generator=draws)[rank : rank + 1]
    label[label == 3 * rank] = 255  # rank 0 lacks class 0, rank 1 lacks class 3
    hard = torch.rand(2, 4, 4, generator=draws)[rank : rank + 1] < 0.6
    representations = torch.randn(2, D, 4, 4, generator=draws)[rank : rank + 1]
    prototypes = Prototypes(torch.randn(K, D, generator=draws), torch.ones(K, dtype=torch.bool))
    return Half(representations, build_pool(label, hard, K), prototypes)


def part(mine: Half, hard_counts: Tensor, rank: int) -> Tensor:
    """[K], a rank's part of the contrastive loss."""
    draws = generator(0, "contrast", 3, rank)
    return contrastive_loss(mine.representations, mine.pool, mine.prototypes, hard_counts, LOSS, draws, world_size=2)


def part_of_a_rank() -> Tensor:
    mine = half(torch.distributed.get_rank())
    (hard_counts,) = sum_over_ranks([mine.pool.hard], 2)
    return part(mine, hard_counts, torch.distributed.get_rank())


def test_the_contrastive_loss_of_two_ranks_is_the_same_two_calls_in_one_process(two_ranks: Ranks) -> None:
    halves = [half(0), half(1)]
    hard_counts = halves[0].pool.hard + halves[1].pool.hard
    here = torch.stack([part(mine, hard_counts, rank) for rank, mine in enumerate(halves)])
    there = torch.stack(two_ranks.call(part_of_a_rank))
    assert torch.allclose(here, there, atol=1e-6)  # counts are integers here and float32 there


STILL = {
    "augment.weak.scale": (1.0, 1.0),
    "augment.strong.scale": (1.0, 1.0),
    "augment.strong.shift": 0.0,
    "augment.strong.jitter": 0.0,
    "augment.strong.blur": 0.0,
    "augment.strong.mix": "none",
    "model.norm": "group",
    "thresholds.delta_s": 0.5,
    "loss.queries": 64,
}


def contrast_of_the_same_images(world_size: int, draws: int) -> Tensor:
    """[draws]: this rank's part of the contrastive loss of a step, where every rank holds the same images."""
    config = tiny_config(STILL)
    batch = load_batch(open_splits(config.data), config, Place(0, 0), CPU)
    state = TrainState(config, LocalRun(device=CPU))
    rank = torch.distributed.get_rank() if world_size > 1 else 0
    values = []
    for seed in range(draws):
        place = Place(seed, 0, rank, world_size)
        with torch.no_grad():
            output = whole_step(state.student, state.teacher, state.prototypes, batch, config, place)
        values.append(output.losses["contrast"])
    return torch.stack(values).double()


def test_two_ranks_that_hold_the_same_images_have_the_contrastive_loss_of_one_in_expectation(two_ranks: Ranks) -> None:
    draws = 30
    one = contrast_of_the_same_images(1, draws)
    parts = two_ranks.call(contrast_of_the_same_images, 2, draws)
    two = parts[0] + parts[1]
    error = math.hypot(one.std().item(), two.std().item()) / math.sqrt(draws)
    assert abs(one.mean() - two.mean()).item() < 4 * error
    assert not torch.equal(parts[0], parts[1])  # each rank draws its own


ODD = {"data.dev": 7, "evaluation.batch": 1}


def confusion_here() -> Tensor:
    config = tiny_config(ODD)
    torch.set_num_threads(1)
    model = build_model(config.model, config.num_classes, 3, CPU).eval()
    with torch.no_grad():
        model.heads.segment[1].weight.mul_(100.0)  # so that an untrained network predicts several classes
    return confusion_matrix(model, open_splits(config.data).dev, config, LocalRun(device=CPU))


def test_two_ranks_count_every_image_once_though_the_images_are_odd(two_ranks: Ranks) -> None:
    one = confusion_here()
    assert int((one.sum(0) > 0).sum()) > 1
    assert one.sum().item() == 7 * 32 * 32
    for two in two_ranks.call(confusion_here):
        assert torch.equal(two, one)
