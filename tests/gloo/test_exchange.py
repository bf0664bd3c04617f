"""What crosses the network in a step besides the gradients: a few numbers a class, whatever the images."""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks
from reference.tiny import tiny_config
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from training import CPU, Settings

from trainers.css.unreliable import BINS
from trainers.data.splits import open_splits
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.methods import METHODS
from trainers.state import TrainState
from trainers.step import css_step
from trainers.targets import StepContext

K = 11
OTHERS = [
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_to_all",
    "all_to_all_single",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "gather_object",
    "isend",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "send",
]
"""Whatever else of `torch.distributed` can send."""


def messages_of_a_step(overrides: Settings) -> list[int]:
    """Numbers of each message of a rank's second step, all float32, but for the gradients' that DDP sends itself."""
    config = tiny_config(overrides)
    run = LocalRun(device=CPU)
    state = TrainState(config, run)
    splits = open_splits(config.data)
    sent: list[int] = []
    reduce = dist.all_reduce

    def all_reduce(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        assert tensor.dtype == torch.float32
        sent.append(tensor.numel())
        return reduce(tensor, *args, **kwargs)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a step must send by all_reduce alone")

    for step in range(2):
        context = StepContext(config.seed, step, run.rank, run.world_size)
        batch = load_batch(splits, config, context, CPU)
        sent.clear()
        with patch.multiple(dist, all_reduce=all_reduce, **dict.fromkeys(OTHERS, refuse)):
            networks, judging = (state.wrapped, state.teacher), state.judging
            for part in css_step(*networks, state.prototypes, batch, config, context, None, judging):
                state.accumulate(torch.stack(list(part.losses.values())).sum())
            state.advance(part.prototypes)
    return sent


def buffers(overrides: Settings) -> int:
    """Numbers in the buffers of the student, BatchNorm's running statistics before all."""
    student = TrainState(tiny_config(overrides), LocalRun(device=CPU)).student
    return sum(buffer.numel() for buffer in student.buffers() if buffer.is_floating_point())


@pytest.mark.parametrize("dim", [16, 24])
@pytest.mark.parametrize("source", ["teacher", "student"])
def test_a_step_sends_sums_and_counts_of_the_classes_and_a_handful_of_numbers(
    two_ranks: Ranks, source: str, dim: int
) -> None:
    overrides = {"ema.prototype_source": source, "model.representation_dim": dim}
    prototypes = K * (dim + 1)
    before = 2 + (prototypes if source == "teacher" else 0)  # with the divisors of L_s and L_u
    after = K + 1 + (prototypes if source == "student" else 0)  # with hard pixels of each class, and valid ones
    assert two_ranks.call(messages_of_a_step, overrides) == [[before, after, buffers(overrides)]] * 2


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        ({"loss.supervised": "ohem"}, [2 + K * 17, 1 + K + 1]),
        ({"schedule.accumulate": 2}, [2 + K * 17, K + 1, K + 1]),
        ({"loss.lambda_c": 0.0, "css.label_strategy": "logit"}, [2]),
        ({"loss.lambda_u": 0.0, "loss.lambda_c": 0.0}, [1]),
        (METHODS["unimatch_v2"], [3]),
        ({**METHODS["supervised"], "bank.weight": 0.1, "bank.anchors": 5}, [1, 2 * K * 5 * 17]),
        ({**METHODS["cutmix"], "thresholds.kind": "entropy_percentile"}, [BINS, 2]),
        ({**METHODS["cps"], "ema.teacher_norm": "eval"}, [2, 2]),
        ({**METHODS["adversarial"], "ema.teacher_norm": "eval"}, [4]),
        ({**METHODS["cutmix"], "loss.lambda_w": 1.0, "css.veto": True}, [3]),
        ({**METHODS["prcl"], "ema.teacher_norm": "eval"}, [2, K + 1 + K * 2 * 16]),
        ({**METHODS["u2pl"], "unreliable.entries": 5}, [BINS, 2 * K * 5 * 17, 2 + K * 17, K + 1]),
    ],
    ids=[
        "mining",
        "parts",
        "no prototypes",
        "labelled alone",
        "two streams",
        "a bank",
        "percentile",
        "two students",
        "a discriminator",
        "weak labels",
        "Gaussians",
        "unreliable",
    ],
)
def test_a_method_sends_what_it_needs_and_no_more(
    two_ranks: Ranks, overrides: Mapping[str, Any], messages: list[int]
) -> None:
    assert two_ranks.call(messages_of_a_step, overrides)[0] == [*messages, buffers(overrides)]


@pytest.mark.parametrize("source", ["teacher", "student"])
def test_no_message_grows_with_the_images_or_the_batch(two_ranks: Ranks, source: str) -> None:
    small = {"ema.prototype_source": source}
    large = {**small, "data.image_size": 64, "schedule.labelled_batch": 8, "schedule.unlabelled_batch": 8}
    assert two_ranks.call(messages_of_a_step, small) == two_ranks.call(messages_of_a_step, large)


def gradients_of_a_step(overrides: Settings) -> tuple[int, int]:
    """Numbers that DDP sends in a step, and parameters of the student."""
    config = tiny_config(overrides)
    run = LocalRun(device=CPU)
    state = TrainState(config, run)
    sent: list[int] = []

    def count(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        sent.append(bucket.buffer().numel())
        return allreduce_hook(None, bucket)

    state.wrapped.register_comm_hook(None, count)
    context = StepContext(config.seed, 0, run.rank, run.world_size)
    batch = load_batch(open_splits(config.data), config, context, CPU)
    for part in css_step(state.wrapped, state.teacher, state.prototypes, batch, config, context):
        state.accumulate(torch.stack(list(part.losses.values())).sum())
    return sum(sent), sum(parameter.numel() for parameter in state.student.parameters())


@pytest.mark.parametrize("overrides", [{}, {"schedule.accumulate": 2}, {"schedule.joint_forward": False}], ids=str)
def test_gradients_cross_the_network_once_a_step(two_ranks: Ranks, overrides: Settings) -> None:
    for sent, parameters in two_ranks.call(gradients_of_a_step, overrides):
        assert sent == parameters
