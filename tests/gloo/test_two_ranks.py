"""What two ranks do together besides computing: stop, resume, add up."""

from pathlib import Path

import torch
from ranks import Ranks
from reference.tiny import differences
from torch import Tensor, nn
from training import trained

from trainers.distributed import average_buffers, sum_over_ranks


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
    assert resumed[0].reports == whole[0].reports[1:]


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
