"""Weak labels: their loss, their veto, and the laws of both in a step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from reference import weak as slow
from reference.tiny import differences, tiny_config, whole_step
from test_permutation import CPU, NEW_NAME, ORDER, K, varied
from torch import Tensor

from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import upsample
from trainers.css.supervision import supervised_loss
from trainers.css.weak import contradicted, partial_label_loss
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.quality import count_pseudo_labels, quality_metrics
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.targets import Batch, StepContext, StudentBatch, make_targets

GROUPS = [[0, 3], [1, 2, 6], [4]]
"""Of 7 classes; class 5 is in none."""
CLASS_GROUPS = torch.tensor([0, 1, 1, 0, 2, 255, 1])
STILL: dict[str, Any] = {
    "augment.strong.mix": "none", "augment.strong.jitter": 0.0, "augment.strong.blur": 0.0,
    "augment.strong.scale": (1.0, 1.0), "augment.strong.shift": 0.0,
}  # fmt: skip
BOTH = {"loss.lambda_w": 1.0, "css.veto": True}


def some_maps(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [2, 7, 5, 6], groups of which a fifth are unknown, and labels of which some are ignored."""
    draws = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 7, 5, 6, generator=draws)
    weak, labels = (torch.randint(high + 1, (2, 5, 6), generator=draws) for high in (3, 7))
    return logits, torch.where(weak == 3, 255, weak), torch.where(labels == 7, 255, labels)


def made(overrides: Mapping[str, Any] = BOTH) -> tuple[TrainState, Batch]:
    """Networks that predict several classes, and a batch, a fourth of whose pixels have no weak label."""
    config = tiny_config({"model.norm": "group", "thresholds.delta_u": 0.0, **overrides})
    state = TrainState(config, LocalRun(device=CPU))
    batch = load_batch(open_splits(config.data), config, StepContext(0, 0), CPU)
    varied(state.student, batch.images)
    state.teacher.load_state_dict(state.student.state_dict())
    state.prototypes = Prototypes(
        torch.randn(K, 16, generator=torch.Generator().manual_seed(0)), torch.arange(K) != 4
    )  # fmt: skip
    if batch.weak is not None:
        batch.weak[:, ::2, ::2] = 255
    return state, batch


def all_vetoed(batch: Batch) -> Batch:
    """The batch with every class in group 0, and every pixel said to be of group 1."""
    assert batch.weak is not None
    return batch._replace(weak=torch.ones_like(batch.weak), class_groups=torch.zeros(K, dtype=torch.int64))


def step_of(state: TrainState, batch: Batch) -> StepOutput:
    return whole_step(state.student, state.teacher, state.prototypes, batch, state.config, StepContext(0, 10))


def targets_of(state: TrainState, batch: Batch) -> StudentBatch:
    return make_targets(state.teacher, state.prototypes, batch, state.config, StepContext(0, 10))


def test_the_loss_and_its_gradient_are_those_of_a_loop() -> None:
    logits, weak, _ = some_maps()
    loss = partial_label_loss(logits.double().requires_grad_(), weak, CLASS_GROUPS)
    mean = loss.total / loss.divisor
    assert mean.item() == pytest.approx(slow.partial_label_loss(logits.double().numpy(), weak.numpy(), GROUPS))
    assert torch.autograd.gradcheck(
        lambda each: partial_label_loss(each, weak[:1, :2, :2], CLASS_GROUPS).total,
        logits[:1, :, :2, :2].double().requires_grad_(),
    )


def test_a_group_of_one_class_makes_it_the_cross_entropy() -> None:
    logits, _, labels = some_maps()
    weak, exact = partial_label_loss(logits, labels, torch.arange(7)), supervised_loss(logits, labels)
    torch.testing.assert_close(weak.total, exact.total)
    assert weak.divisor == exact.divisor


def test_a_group_of_all_classes_makes_it_zero_and_so_does_an_unknown_group() -> None:
    logits, _, _ = some_maps()
    logits.requires_grad_()
    for value, known in ((0, 60), (255, 0)):
        loss = partial_label_loss(logits, torch.full((2, 5, 6), value), torch.zeros(7, dtype=torch.int64))
        (gradient,) = torch.autograd.grad(loss.total, logits)
        assert (loss.total.item(), loss.divisor.item()) == (0.0, known)
        assert not gradient.any()


def test_logits_that_float32_cannot_tell_apart_give_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1).requires_grad_()
    loss = partial_label_loss(logits, torch.ones(1, 1, 1, dtype=torch.int64), torch.tensor([0, 1, 0])).total
    loss.backward()
    assert loss.item() == 2e4
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == [1.0, -1.0, 0.0]


def test_labels_are_contradicted_where_a_loop_says_so() -> None:
    _, weak, labels = some_maps()
    kept = torch.where(contradicted(labels, weak, CLASS_GROUPS), 255, labels).numpy()
    np.testing.assert_array_equal(kept, slow.vetoed(labels.numpy(), weak.numpy(), GROUPS))
    assert 0 < (kept != labels.numpy()).mean() < 1


def test_the_loss_of_a_step_is_that_of_the_first_view() -> None:
    state, batch = made({**METHODS["unimatch_v2"], "loss.lambda_w": 1.0, "schedule.joint_forward": False})
    first = targets_of(state, batch).views[0]
    assert first.weak is not None
    seen = []
    state.student.register_forward_hook(lambda _, __, output: seen.append(output.logits))
    output = step_of(state, batch)
    logits = upsample(seen[1][: len(first.images)], (32, 32)).detach().double()  # of the views, the first comes first
    expected = slow.partial_label_loss(logits.numpy(), first.weak.numpy(), [[0], list(range(1, K))])
    assert output.losses["weak"].item() == pytest.approx(expected, rel=1e-5)
    assert output.statistics["share/weak"].item() == pytest.approx((first.weak != 255).float().mean().item())


def test_weak_labels_move_and_mix_with_their_images() -> None:
    state, batch = made({"loss.lambda_w": 1.0, "augment.strong.jitter": 0.0, "augment.strong.blur": 0.0})
    assert batch.unlabelled is not None
    # Images that show the group: their left is of group 0 and grey, their right of group 1 and white.
    groups = (torch.arange(32) >= 16).long().expand(4, 32, 32).contiguous()
    shown = (0.5 + 0.5 * groups)[:, None].expand(-1, 3, -1, -1).contiguous()
    view = targets_of(state, batch._replace(unlabelled=shown, weak=groups)).views[0]
    assert view.weak is not None
    for group, grey in ((0, 0.5), (1, 1.0)):
        seen = view.images[:, 0][view.weak == group]
        assert (seen - grey).abs().max() <= 0.25  # half-way at the border
        assert (seen == grey).float().mean() > 0.8
    assert not torch.equal(view.weak, groups)


@pytest.mark.parametrize("strategy", ["logit", "representation", "mix", "cross"])
def test_a_veto_ignores_what_contradicts_in_both_spaces_and_nothing_else(strategy: str) -> None:
    state, batch = made({"css.veto": True, "css.label_strategy": strategy, **STILL})
    assert batch.weak is not None
    vetoed = targets_of(state, batch).views[0].targets
    free = targets_of(state, batch._replace(weak=None)).views[0].targets
    groups = [[0], list(range(1, K))]
    pairs = ((0, free.confidence, vetoed.confidence), (1, free.indicator, vetoed.indicator))
    for at, before, after in pairs:
        expected = slow.vetoed(free[at].numpy(), batch.weak.numpy(), groups)
        np.testing.assert_array_equal(vetoed[at].numpy(), expected)
        gone = (vetoed[at] == 255) & (free[at] != 255)
        assert 0 < gone.float().mean() < 1
        assert torch.equal(after, torch.where(gone, 0.0, before))


def test_where_nothing_is_known_a_step_is_that_without_weak_labels() -> None:
    state, batch = made(BOTH)
    assert batch.weak is not None
    known = step_of(state, batch._replace(weak=torch.full_like(batch.weak, 255)))
    plain, same = made({})
    without = step_of(plain, same)
    assert (known.losses.pop("weak").item(), known.statistics.pop("share/weak").item()) == (0.0, 0.0)
    assert differences(known.losses, without.losses) == []
    assert differences(known.statistics, without.statistics) == []


def test_where_all_labels_are_vetoed_the_unsupervised_loss_is_zero() -> None:
    state, batch = made({**METHODS["cutmix"], "css.veto": True})
    assert step_of(state, batch).statistics["share/unsupervised"] > 0
    output = step_of(state, all_vetoed(batch))
    assert output.losses["unsupervised"].item() == 0.0
    assert output.statistics["share/unsupervised"].item() == 0.0


def test_vetoed_pixels_take_no_part_in_a_percentile_nor_among_unreliable_pixels() -> None:
    unsure = {**METHODS["u2pl"], "unreliable.anchor_confidence": 0.0, "css.veto": True, **STILL}
    state, batch = made(unsure)
    some, none = (targets_of(state, each) for each in (batch, all_vetoed(batch)))
    assert some.views[0].targets.indicator.any()
    assert not none.views[0].targets.indicator.any()
    assert some.negatives is not None
    assert none.negatives is not None
    assert none.negatives.valid.sum() < some.negatives.valid.sum()


def test_permuting_the_classes_leaves_the_losses() -> None:
    overrides = {**METHODS["cutmix"], **BOTH}
    state, batch = made(overrides)
    before = step_of(state, batch).losses
    with torch.no_grad():
        for network in (state.student, state.teacher):
            rows = network.heads.segment[1]
            rows.weight.copy_(rows.weight[ORDER])
            rows.bias.copy_(rows.bias[ORDER])
    assert batch.class_groups is not None
    moved = batch._replace(labels=NEW_NAME[batch.labels], class_groups=batch.class_groups[ORDER])
    after = step_of(state, moved).losses
    assert {name: value.item() for name, value in before.items()} == pytest.approx(
        {name: value.item() for name, value in after.items()}, rel=1e-5
    )


def test_the_quality_of_a_veto_counts_what_it_takes_and_what_of_that_was_right() -> None:
    state, _ = made({"css.veto": True, "css.label_strategy": "logit", "evaluation.quality_images": 4})
    config, run = state.config, LocalRun(device=CPU)
    counts = count_pseudo_labels(
        state.teacher, state.prototypes, open_splits(config.data).unlabelled, config, run, False
    )
    metrics = quality_metrics(counts, config, with_prototypes=True)
    # The groups of the digits come from the truth, so what contradicts them is wrong, and all of it that they can see.
    wrong = counts.confusion[0].clone()
    wrong[1:, 1:], wrong[0, 0] = 0, 0
    assert metrics["quality/veto/share"] == pytest.approx(wrong.sum().item() / counts.confusion[0].sum().item())
    assert metrics["quality/veto/accuracy"] == 0.0
    assert "quality/veto/miou" not in metrics
    assert counts.kept.sum() == counts.predicted.sum() - wrong.sum()  # delta_u is 0


def test_a_training_on_labels_and_weak_labels_alone_makes_no_prototypes_and_lowers_the_loss() -> None:
    config = tiny_config({**METHODS["supervised"], "loss.lambda_w": 1.0, "schedule.evaluate_every": 10})
    losses: list[float] = []
    train(config, LocalRun(device=CPU, listener=lambda metrics: losses.append(metrics["train/loss/weak"])))
    assert not config.uses_prototypes
    assert losses[1] < losses[0]


@pytest.mark.parametrize(("overrides", "message"), [
    ({"data.weak_groups": {"one": ["0", "cat"]}}, r"weak_groups must name classes, got 'cat'"),
    ({"data.weak_groups": {"one": ["0"], "two": ["1", "0"]}}, r"weak_groups must name a class once, got '0' twice"),
    ({"data.weak_groups": {"one": []}}, r"weak_groups"),
    ({"data.weak_groups": None, "css.veto": True}, r"data.weak_groups must name groups of classes with .* got none"),
    ({"data.weak_groups": None, "loss.lambda_w": 1}, r"data.weak_groups must name groups of classes with .* got none"),
    ({"loss.lambda_w": -1}, r"lambda_w"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(overrides)


def test_groups_keep_their_order_which_numbers_them() -> None:
    config = tiny_config({"data.weak_groups": {"z": ["1"], "a": ["background", "2"]}})
    assert config.class_groups == (1, 255, 0, 1, *[255] * 7)
    assert config.hash != tiny_config({"data.weak_groups": {"a": ["background", "2"], "z": ["1"]}}).hash
