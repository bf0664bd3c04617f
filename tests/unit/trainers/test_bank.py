"""The bank of labelled pixels: what enters, what leaves, and the loss against it, as its definitions say."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import bank as slow
from reference.tiny import differences, tiny_config
from torch import Tensor

from trainers.config import TrainConfig
from trainers.css.bank import Bank, BankDraws, Chosen, admitted, bank_loss, choose, draw_bank, put
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.state import TrainState
from trainers.step import css_step
from trainers.targets import StepContext

K, D, SIZE = 11, 16, (6, 5)
CPU = torch.device("cpu")
BANK = {"bank.weight": 0.1, "bank.size": 12, "bank.anchors": 5, "bank.anchors_in_all": 17, "thresholds.delta_u": 0.3}
RULES = ["labelled_correct", "labelled", "confident"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config_of(**bank: Any) -> TrainConfig:
    return tiny_config({**BANK, **{f"bank.{name}": value for name, value in bank.items()}})


def maps(seed: int, count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, representations and labels, of which one class is frequent, one is rare and one is not there."""
    draws = generator(seed)
    labels = torch.randint(0, K - 1, (count, *SIZE), generator=draws)
    labels = torch.where(torch.rand(labels.shape, generator=draws) < 0.3, 0, labels)
    labels[0, 0] = 255
    logits = torch.randn(count, K, *SIZE, generator=draws) + 2 * F.one_hot(labels % K, K).permute(0, 3, 1, 2)
    return logits, torch.randn(count, D, *SIZE, generator=draws), labels


def steps(config: TrainConfig, count: int) -> tuple[list[Bank], list[Tensor], slow.Queues, list[float]]:
    """Banks and losses of some steps, ours and the reference's."""
    bank, queues = Bank.empty(K, D, config.bank.size, CPU), slow.Queues(K, config.bank.size)
    banks, losses, expected = [], [], []
    for step in range(count):
        logits, representations, labels = maps(step)
        draws = draw_bank(labels, SIZE, config, generator(step))
        chosen = choose(representations, admitted(logits, labels, config), draws, config, 0, 1)
        losses.append(bank_loss(chosen, bank, draws, config.bank))
        bank = put(bank, chosen)
        banks.append(bank)
        classes = slow.admitted(logits.double().numpy(), labels.numpy(), config.bank.pixels, 0.3)
        order = draws.pixels.double().numpy()
        entries = slow.chosen(representations.double().numpy(), classes, order, K, config.bank.anchors)
        slots = [(class_, slot) for class_ in range(K) for slot in range(len(entries[class_]))]
        slots.sort(key=lambda place: draws.anchors[place].item())
        anchors = [(class_, entries[class_][slot]) for class_, slot in slots[: config.bank.anchors_in_all]]
        expected.append(queues.loss(anchors, config.bank.temperature))
        queues.put(entries)
    return banks, losses, queues, expected


@pytest.mark.parametrize("rule", RULES)
def test_pixels_enter_by_the_rule_of_the_config(rule: str) -> None:
    logits, _, labels = maps(0)
    ours = admitted(logits, labels, config_of(pixels=rule))
    assert ours.tolist() == slow.admitted(logits.double().numpy(), labels.numpy(), rule, 0.3).tolist()
    assert 0 < (ours != 255).sum() < ours.numel()


@pytest.mark.parametrize("rule", RULES)
def test_the_loss_is_that_of_each_anchor_against_the_queues(rule: str) -> None:
    _, losses, _, expected = steps(config_of(pixels=rule), 4)
    assert losses[0].item() == 0.0
    assert min(expected[1:]) > 1.0
    assert all(math.isclose(ours.item(), its, rel_tol=1e-5) for ours, its in zip(losses, expected, strict=True))


def test_the_bank_holds_what_the_queues_hold_and_the_oldest_leave() -> None:
    banks, _, queues, _ = steps(config_of(), 5)
    bank = banks[-1]
    assert (bank.entered > 12).any()
    assert (bank.entered == 0).any()
    for class_, queue in enumerate(queues.of_class):
        entered = int(bank.entered[class_])
        oldest_first = [bank.values[class_, place % 12] for place in range(max(0, entered - 12), entered)]
        assert len(oldest_first) == len(queue)
        assert all(torch.allclose(ours, torch.as_tensor(its).float(), atol=1e-6)
                   for ours, its in zip(oldest_first, queue, strict=True))  # fmt: skip


def test_gradients_reach_the_anchors_and_no_pixel_of_the_bank() -> None:
    config = config_of(pixels="labelled")
    bank = steps(config, 2)[0][-1]
    _, representations, labels = maps(7)
    representations.requires_grad_()
    bank.values.requires_grad_(False)
    draws = draw_bank(labels, SIZE, config, generator(7))
    chosen = choose(representations, labels, draws, config, 0, 1)
    bank_loss(chosen, bank, draws, config.bank).backward()
    touched = representations.grad.abs().sum(1) > 0
    assert 0 < touched.sum() <= config.bank.anchors_in_all
    assert not touched[labels == 255].any()
    assert not put(bank, chosen).values.requires_grad


def test_an_anchor_that_is_one_of_many_alike_pixels_has_the_loss_of_its_share() -> None:
    # All cosines are 1, so each pixel of the bank counts alike: of class 0 three of four.
    config = config_of(anchors=3, size=3)
    values = torch.zeros(K, 3, D)
    values[:2, :, 0] = 1.0
    bank = Bank(values, torch.tensor([3, 1, *[0] * 9]))
    entries = torch.zeros(K, 3, D)
    entries[:, :, 0] = 1.0
    valid = torch.zeros(K, 3, dtype=torch.bool)
    valid[0, 0] = valid[5, 0] = True  # of class 5 the bank holds nothing, so its pixel does not count
    loss = bank_loss(Chosen(entries, valid, valid), bank, BankDraws(torch.zeros(1), torch.zeros(K, 3)), config.bank)
    assert loss.item() == pytest.approx(math.log(4 / 3), rel=1e-5)  # float32


def test_a_training_with_a_bank_resumes_with_it() -> None:
    config = tiny_config(METHODS["pixcon"] | {"schedule.steps": 3, "bank.pixels": "labelled"})
    state = train(config, LocalRun(device=CPU))
    assert state.bank is not None
    assert state.bank.entered.sum() > 0
    other = TrainState(config, LocalRun(device=CPU))
    other.load_state_dict(state.state_dict())
    assert differences(other.bank._asdict(), state.bank._asdict()) == []


def test_without_a_bank_a_state_holds_none() -> None:
    state = TrainState(tiny_config(), LocalRun(device=CPU))
    assert state.bank is None
    assert "bank" not in state.state_dict()


def test_parts_of_a_step_fill_the_bank_one_after_another() -> None:
    config = tiny_config(METHODS["pixcon"] | {"schedule.accumulate": 2, "bank.pixels": "labelled", "bank.anchors": 4})
    state, context = TrainState(config, LocalRun(device=CPU)), StepContext(0, 0)
    batch = load_batch(open_splits(config.data), config, context, CPU)
    parts = css_step(state.student, state.teacher, state.prototypes, batch, config, context)
    entered = [part.bank.entered for part in parts if part.bank is not None]
    assert entered[0].max() == 4
    assert (entered[1] >= entered[0]).all()
    assert entered[1].max() == 8


def test_a_queue_that_cannot_hold_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"bank: anchors must be at most size \(12\), got 13: lower it or raise size"):
        config_of(anchors=13)
