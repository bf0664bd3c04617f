"""The contrastive loss of ranks: each draws from its own pixels, and stands for its share of a class's hard ones."""

import math
from typing import NamedTuple

import pytest
import torch
from ranks import Processes, Ranks
from reference.tiny import tiny_config, whole_step
from torch import Tensor
from training import CPU

from trainers.config import LossConfig
from trainers.css.contrast import PixelPool, build_pool, contrastive_loss
from trainers.css.prototypes import Prototypes
from trainers.data.splits import open_splits
from trainers.distributed import sum_over_ranks
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.randomness import generator
from trainers.state import TrainState
from trainers.targets import StepContext

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


def alike_of_a_rank(world_size: int) -> Tensor:
    """[K], a rank's part where every pixel lies on its class's axis, and so does the class's prototype.

    Then each anchor has the same loss, whatever is drawn. Of four images each lacks a class, and none has class 4.
    """
    rank = torch.distributed.get_rank() if world_size > 1 else 0
    label = torch.randint(0, K - 1, (4, 4, 4), generator=torch.Generator().manual_seed(0))
    for image in range(4):
        label[image][label[image] == image] = 255
    hard = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    mine = slice(rank * 4 // world_size, (rank + 1) * 4 // world_size)
    axes = torch.eye(K, D)
    representations = axes[label[mine].clamp(max=K - 1)].permute(0, 3, 1, 2)
    pool = build_pool(label[mine], hard[mine], K)
    (hard_counts,) = sum_over_ranks([pool.hard], world_size)
    prototypes = Prototypes(axes, torch.ones(K, dtype=torch.bool))
    return contrastive_loss(
        representations, pool, prototypes, hard_counts, LOSS, generator(0, "contrast", 3, rank), world_size
    )


@pytest.mark.parametrize("world_size", [2, 4])
def test_where_anchors_of_a_class_are_alike_the_parts_of_all_ranks_are_the_loss_of_one_process(
    processes: Processes, world_size: int
) -> None:
    expected = math.log(1 + LOSS.negatives * math.exp(-1 / LOSS.temperature))
    parts = torch.stack(processes.call(world_size, alike_of_a_rank, world_size))
    assert ((parts == 0).sum(0)[:4] == (1 if world_size == 4 else 0)).all()  # of the rank that lacks the class
    for loss in (alike_of_a_rank(1), parts.sum(0)):
        assert torch.allclose(loss, torch.tensor([expected] * 4 + [0.0]), atol=1e-5)  # float32


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
    batch = load_batch(open_splits(config.data), config, StepContext(0, 0), CPU)
    state = TrainState(config, LocalRun(device=CPU))
    rank = torch.distributed.get_rank() if world_size > 1 else 0
    values = []
    for seed in range(draws):
        context = StepContext(seed, 0, rank, world_size)
        with torch.no_grad():
            output = whole_step(state.student, state.teacher, state.prototypes, batch, config, context)
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
