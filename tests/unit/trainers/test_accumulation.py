"""A step in parts is the step in one, in all that does not depend on the company in which an image is seen."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from reference.tiny import tiny_config
from torch import Tensor

from trainers.config import TrainConfig
from trainers.css.prototypes import Prototypes
from trainers.data.batches import check_batches
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.state import TrainState
from trainers.step import css_step
from trainers.targets import StepContext

K, D = 11, 16
CPU = torch.device("cpu")
PARTED = {"model.norm": "group", "loss.lambda_c": 0.0}
"""No statistics over images, and no samples: all that is left adds up."""

CASES: list[Mapping[str, Any]] = [
    {},
    {"css.label_strategy": "cross", "loss.unsupervised": "image_share"},
    {"ema.prototype_source": "student"},
    {"css.label_strategy": "logit", "loss.class_weights": tuple(1.0 + at for at in range(K))},
    {"schedule.joint_forward": False},
    {"loss.lambda_u": 0.0},
    {"loss.lambda_w": 1.0, "css.veto": True},
    METHODS["unimatch_v2"] | {"ema.teacher_norm": "eval", "streams.third.weight": 1.0, "streams.third.view": "weak"},
]


def gradients(config: TrainConfig, batch_of: TrainConfig) -> tuple[dict[str, Tensor], list[dict[str, float]], Tensor]:
    """Gradients of a step, losses and statistics of its parts, and the next prototypes."""
    state = TrainState(config, LocalRun(device=CPU))
    context = StepContext(config.seed, 10)
    batch = load_batch(open_splits(batch_of.data), batch_of, context, CPU)
    prototypes = Prototypes(torch.randn(K, D, generator=torch.Generator().manual_seed(0)), torch.arange(K) != 4)
    outputs = []
    for part in css_step(state.wrapped, state.teacher, prototypes, batch, config, context):
        state.accumulate(torch.stack(list(part.losses.values())).sum())
        outputs.append({name: value.item() for name, value in {**part.losses, **part.statistics}.items()})
        after = part.prototypes
    return {name: p.grad.clone() for name, p in state.student.named_parameters()}, outputs, after.values


@pytest.mark.parametrize("overrides", CASES, ids=lambda case: " ".join(map(str, case.values())) or "mix")
@pytest.mark.parametrize("parts", [2, 4])
def test_gradients_losses_shares_and_prototypes_of_the_parts_add_up(overrides: Mapping[str, Any], parts: int) -> None:
    whole = tiny_config({**PARTED, "thresholds.delta_u": 0.1, **overrides})
    single, (whole_output,), prototypes = gradients(whole, whole)
    split = tiny_config({**PARTED, "thresholds.delta_u": 0.1, **overrides, "schedule.accumulate": parts})
    several, part_outputs, parts_prototypes = gradients(split, whole)
    assert len(part_outputs) == parts
    assert any(value.any() for value in single.values())
    # float32 sums of thousands of terms in another order.
    assert [name for name in single if not torch.allclose(single[name], several[name], rtol=1e-4, atol=1e-6)] == []
    assert torch.allclose(prototypes, parts_prototypes, atol=1e-6)
    for name in whole_output.keys() - {"share/hard"}:  # a ratio of a part's own counts
        assert sum(part[name] for part in part_outputs) == pytest.approx(whole_output[name], rel=1e-5), name


def test_the_contrastive_loss_of_parts_estimates_that_of_the_whole() -> None:
    sampled = {"model.norm": "group", "loss.queries": 256, "loss.negatives": 256, "augment.strong.mix": "none"}
    whole = tiny_config(sampled)
    _, (whole_output,), _ = gradients(whole, whole)
    _, parts, _ = gradients(tiny_config({**sampled, "schedule.accumulate": 2}), whole)
    # Each part draws half of a class's anchors, from its own pixels; a quarter is several times the spread seen.
    assert sum(part["contrast"] for part in parts) == pytest.approx(whole_output["contrast"], rel=0.25)


def test_training_in_parts_keeps_the_number_of_steps_and_learns_the_same() -> None:
    states = [
        train(tiny_config({**PARTED, "schedule.steps": 3, "schedule.accumulate": parts}), LocalRun(device=CPU))
        for parts in (1, 2)
    ]
    assert [state.step for state in states] == [3, 3]
    one, two = (state.student.state_dict() for state in states)
    assert [name for name in one if not torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-5)] == []


def test_a_share_that_parts_cannot_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule.labelled_batch .* got 4 for 1 workers x 3: set it to 6"):
        check_batches(tiny_config({"schedule.accumulate": 3}), 1)
