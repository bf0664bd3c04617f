"""The teacher, and what an optimizer step does to the state."""

from copy import deepcopy
from inspect import signature

import pytest
import torch
from reference.tiny import differences, tiny_config
from torch import nn

from trainers.css.prototypes import Prototypes
from trainers.local_run import LocalRun
from trainers.models.build import build_model
from trainers.state import TrainState, make_optimizer, make_teacher, update_teacher


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def fresh_state(**overrides: object) -> TrainState:
    return TrainState(tiny_config(overrides), LocalRun())


def fall(state: TrainState) -> None:
    """One step down a loss that every parameter takes part in."""
    dense = state.wrapped(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(state.step)))
    state.accumulate(dense.logits.square().mean() + dense.representations.square().mean())
    state.advance(state.prototypes)


def test_a_new_teacher_is_the_student() -> None:
    state = fresh_state()
    assert differences(state.teacher.state_dict(), state.student.state_dict()) == []


def test_after_the_first_step_the_teacher_is_the_student() -> None:
    state = fresh_state()
    fall(state)
    assert differences(state.teacher.state_dict(), state.student.state_dict()) == []


def test_after_the_second_step_the_teacher_is_the_mean_of_two_students() -> None:
    state = fresh_state()
    fall(state)
    first = [parameter.detach().clone() for parameter in state.student.parameters()]
    fall(state)
    for teacher, one, two in zip(state.teacher.parameters(), first, state.student.parameters(), strict=True):
        assert torch.allclose(teacher, (one + two) / 2, atol=1e-7)  # weights below one in float32


def test_the_teachers_parameters_move_by_one_minus_the_momentum() -> None:
    student, teacher = network(), make_teacher(network())
    before = teacher[0].weight.clone()
    update_teacher(teacher, student, 0.75)
    assert torch.allclose(teacher[0].weight, 0.75 * before + 0.25 * student[0].weight)


def test_the_teachers_float_buffers_move_like_its_parameters() -> None:
    student, teacher = network(), make_teacher(network())
    student[1].running_mean.fill_(8.0)
    student[1].running_var.fill_(5.0)
    update_teacher(teacher, student, 0.75)
    assert teacher[1].running_mean.tolist() == [2.0, 2.0]
    assert teacher[1].running_var.tolist() == [2.0, 2.0]


def test_a_teacher_that_normalises_by_the_batch_keeps_its_own_statistics() -> None:
    state = fresh_state(**{"ema.teacher_norm": "train"})
    assert state.teacher.training
    own = {name: value.clone() for name, value in state.teacher.named_buffers() if "running" in name}
    state.teacher(torch.rand(2, 3, 32, 32))
    moved = {name: value.clone() for name, value in state.teacher.named_buffers() if name in own}
    assert all(not torch.equal(own[name], moved[name]) for name in own)
    fall(state)
    assert differences(moved, {name: value for name, value in state.teacher.named_buffers() if name in own}) == []
    assert torch.equal(next(state.teacher.parameters()), next(state.student.parameters()))  # the first step


def test_the_network_that_is_scored_is_the_configured_one() -> None:
    assert (state := fresh_state()).scored is state.teacher
    assert (state := fresh_state(**{"evaluation.network": "student"})).scored is state.student


def test_the_teachers_counters_are_the_students() -> None:
    student, teacher = network(), make_teacher(network())
    student[1].num_batches_tracked.fill_(41)
    update_teacher(teacher, student, 0.75)
    assert teacher[1].num_batches_tracked.item() == 41


def test_a_teacher_stays_out_of_training() -> None:
    teacher = make_teacher(network())
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_changing_the_student_in_place_leaves_the_teacher() -> None:
    student = network()
    teacher = make_teacher(student)
    before = teacher[0].weight.clone()
    with torch.no_grad():
        student[0].weight.add_(1.0)
    assert torch.equal(teacher[0].weight, before)


def test_each_step_uses_the_learning_rate_of_its_number() -> None:
    state = fresh_state(**{"optimizer.lr": 0.2, "optimizer.power": 1.0, "schedule.steps": 4})
    rates = []
    for _ in range(3):
        fall(state)
        rates.append(state.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.15, 0.1])


def test_a_step_takes_over_the_prototypes() -> None:
    state = fresh_state()
    new = Prototypes(torch.ones(11, 16), torch.ones(11, dtype=torch.bool))
    state.accumulate(sum(parameter.sum() for parameter in state.student.parameters()))
    state.advance(new)
    assert state.prototypes is new


def test_a_state_loads_into_a_fresh_one_bit_by_bit() -> None:
    state, other = fresh_state(), fresh_state()
    fall(state)
    other.load_state_dict(state.state_dict())
    assert differences(other.state_dict(), state.state_dict()) == []


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_building_a_network_is_a_function_of_its_seed(norm: str) -> None:
    config = tiny_config({"model.norm": norm}).model
    device = torch.device("cpu")
    one, same, other = (build_model(config, 11, seed, device).state_dict() for seed in (1, 1, 2))
    assert differences(one, same) == []
    assert differences(one, other) != []


@pytest.mark.parametrize(("kind", "expected"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_config_chooses_the_optimizer_and_its_settings(kind: str, expected: type) -> None:
    config = tiny_config({"optimizer.kind": kind, "optimizer.lr": 0.02, "optimizer.weight_decay": 0.3}).optimizer
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, expected)
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.3)


@pytest.mark.parametrize(("kind", "theirs"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_an_optimizer_goes_on_as_torchs_own_does_from_the_same_state(kind: str, theirs: type) -> None:
    config = tiny_config({"optimizer.kind": kind, "optimizer.lr": 0.02, "optimizer.weight_decay": 0.3}).optimizer
    networks = [torch.nn.Linear(3, 2) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours = make_optimizer(networks[0], config)
    accepted = signature(theirs).parameters
    settings = {name: value for name, value in ours.defaults.items() if name in accepted}
    others = theirs(networks[1].parameters(), **settings)
    for _ in range(3):
        for network, optimizer in zip(networks, (ours, others), strict=True):
            network(torch.arange(6.0).reshape(2, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        others.load_state_dict(deepcopy(ours.state_dict()))
    assert differences(networks[0].state_dict(), networks[1].state_dict()) == []
    assert differences(ours.state_dict(), others.state_dict()) == []
