"""Pixels by the teacher's entropy: which enter L_u, which are anchors, and which negatives of which class (U2PL)."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import u2pl as slow
from reference.tiny import differences, tiny_config, whole_step
from test_permutation import NEW_NAME, ORDER, permuted, step_of, world
from torch import Tensor

from trainers.config import LossConfig, UnreliableConfig
from trainers.css.bank import Bank, choose_members
from trainers.css.contrast import build_pool, contrastive_loss, draw_samples
from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import upsample
from trainers.css.supervision import confident_pixel_loss
from trainers.css.unreliable import BINS, as_unsure, negatives, pixel_entropy, scattered
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.quality import count_pseudo_labels
from trainers.state import TrainState
from trainers.step import StepOutput, css_step
from trainers.targets import StepContext, StudentBatch, make_targets

K, D, SIZE = 11, 16, (6, 5)
CPU = torch.device("cpu")
YOUNG = {"unreliable.anchor_confidence": 0.05, "unreliable.size": 40, "unreliable.entries": 7}
"""Anchors of networks that are sure of nothing yet, and queues that overflow within a few steps."""
U2PL = {**METHODS["u2pl"], **YOUNG}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits_of(seed: int, count: int = 4, scale: float = 3.0) -> Tensor:
    """Of sure and unsure pixels."""
    sureness = scale * torch.rand(count, 1, *SIZE, generator=generator(seed + 100)) ** 2
    return sureness * torch.randn(count, K, *SIZE, generator=generator(seed))


def some_labels(seed: int, count: int = 4) -> Tensor:
    labels = torch.randint(0, K, (count, *SIZE), generator=generator(seed))
    labels[0, :2] = 255
    return labels


def young(overrides: dict[str, Any], step: int = 10) -> tuple[TrainState, StudentBatch, StepOutput]:
    """A fresh state, what its teacher makes of the images of a step, and the step."""
    config, context = tiny_config(overrides), StepContext(0, step)
    state = TrainState(config, LocalRun(device=CPU))
    batch = load_batch(open_splits(config.data), config, context, CPU)
    made = make_targets(state.teacher, state.prototypes, batch, config, context)
    return state, made, whole_step(state.student, state.teacher, state.prototypes, batch, config, context)


@pytest.mark.parametrize("scale", [0.0, 3.0, 300.0], ids=["all alike", "some sure", "float32 at its limits"])
def test_the_entropy_of_a_pixel_is_that_of_its_softmax_over_log_k(scale: float) -> None:
    logits = logits_of(0, scale=scale)
    expected = torch.as_tensor(slow.entropies(logits.double().numpy()) / math.log(K)).float()
    assert torch.allclose(pixel_entropy(logits), expected, atol=1e-6)
    assert not pixel_entropy(logits).signbit().any()


@pytest.mark.parametrize("percent", [80, 90, 97])
def test_the_pixels_below_a_percentile_are_those_of_numpy_but_for_entropies_in_its_bin(percent: int) -> None:
    entropy, labels = pixel_entropy(logits_of(1, count=40)), some_labels(1, count=40)
    counted = labels != 255
    kept = as_unsure(entropy, counted) >= 1 - percent / 100
    theirs = torch.as_tensor(slow.below_percentile(entropy.double().numpy(), labels.numpy(), percent))
    threshold = np.percentile(entropy[counted].double().numpy(), percent)
    assert 0 < (kept & counted).sum() < counted.sum()
    assert ((entropy[(kept & counted) != theirs] - threshold).abs() <= threshold / 512).all()


def test_of_entropies_far_apart_the_shares_are_the_ranks_from_above() -> None:
    # Ten entropies from near 1 to near 0, one bin each; two are not counted.
    entropy = (0.9 * 0.5 ** torch.arange(10.0)).view(1, 2, 5)
    counted = torch.ones(1, 2, 5, dtype=torch.bool)
    counted[0, 0, 1] = counted[0, 1, 4] = False
    shares = as_unsure(entropy, counted).flatten()
    assert shares.tolist() == [1 / 8, 0.0, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1.0, 0.0]


@pytest.mark.parametrize("value", [0.0, 1e-12, 2.0**-30, 1.0])
def test_an_entropy_at_either_end_has_a_bin(value: float) -> None:
    assert as_unsure(torch.full((1, 2, 2), value), torch.ones(1, 2, 2, dtype=torch.bool)).eq(1.0).all()


def test_what_a_diverged_teacher_says_is_as_unsure_as_can_be() -> None:
    assert pixel_entropy(torch.full((1, 3, 2, 2), math.nan)).eq(1.0).all()


def test_where_no_pixel_is_pseudo_labelled_the_loss_is_zero() -> None:
    entropy, labels = pixel_entropy(logits_of(2)), torch.full((4, *SIZE), 255)
    shares, logits = as_unsure(entropy, labels != 255), logits_of(3).requires_grad_()
    loss = confident_pixel_loss(logits, labels, shares, 0.0)
    loss.total.backward()
    assert (loss.total.item(), loss.divisor.item(), shares.max().item()) == (0.0, 0.0, 0.0)
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("step", "share"), [(0, 0.6), (10, 0.8), (15, 0.9)])
def test_the_share_of_pixels_in_the_unsupervised_loss_rises_linearly(step: int, share: float) -> None:
    still = {"augment.strong.scale": (1.0, 1.0), "augment.strong.shift": 0.0, "augment.strong.mix": "none"}
    it = world({**U2PL, **still, "thresholds.percentile": 0.6})  # a teacher that is sure here and unsure there
    (view,) = make_targets(it.teacher, it.prototypes, it.batch, it.config, StepContext(0, step)).views
    kept = (view.divisor / (view.targets.logit_target != 255).sum()).item()
    assert share <= kept < share + 0.02  # with those that share the percentile's bin


def test_the_loss_is_the_mean_over_kept_pixels_divided_by_their_share() -> None:
    plain = young({**U2PL, "loss.unsupervised": "pixel"})[2]
    weighted = young(U2PL)[2]
    share = plain.statistics["share/unsupervised"]
    assert 0.3 < share < 1
    assert weighted.statistics["share/unsupervised"] == share
    expected = plain.losses["unsupervised"] / share
    assert weighted.losses["unsupervised"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(3, 20), (2, 5), (0, 1)])
def test_negatives_are_those_of_the_definition(low: int, high: int) -> None:
    probs, labels = logits_of(4, count=7).softmax(1), some_labels(4, count=4)
    unsure = torch.rand(3, *SIZE, generator=generator(5)) < 0.5
    ours = negatives(probs, labels, unsure, UnreliableConfig(low_rank=low, high_rank=high))
    expected = slow.negative_mask(probs.double().numpy(), labels.numpy(), unsure.numpy(), low, high)
    assert ours.tolist() == expected.tolist()
    assert ours[4:].any()
    assert ours[:4].any() == (low > 0)


def test_scattered_numbers_are_all_different_and_spread_evenly() -> None:
    numbers = scattered(torch.arange(100_000), 12345)
    assert numbers.unique().numel() == 100_000
    assert (numbers.min() >= 0, numbers.max() < 2**32) == (True, True)
    tenths = torch.bincount(numbers * 10 // 2**32, minlength=10)
    assert (tenths - 10_000).abs().max() < 5 * math.sqrt(10_000 * 0.9)
    assert not torch.equal(numbers.argsort(), scattered(torch.arange(100_000), 12346).argsort())


@pytest.mark.parametrize("most", [5, 200], ids=["some of them", "more than there are pixels"])
def test_a_pixel_of_several_classes_enters_the_queue_of_each(most: int) -> None:
    representations = torch.randn(4, D, *SIZE, generator=generator(6))
    members = torch.rand(4, K, *SIZE, generator=generator(7)) < 0.3
    members[:, 2] = False
    order = scattered(torch.arange(4 * SIZE[0] * SIZE[1]), 8)
    chosen = choose_members(representations, members, order, most)
    flat = F.normalize(representations, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    for class_ in range(K):
        of_class = [at for at in order.argsort().tolist() if members.transpose(0, 1).flatten(1)[class_, at]][:most]
        assert chosen.valid[class_].sum() == len(of_class)
        assert torch.allclose(chosen.entries[class_][chosen.valid[class_]], flat[of_class], atol=1e-6)  # lengths
    assert chosen.entries.shape == (K, most, D)


def test_the_contrast_is_that_of_each_anchor_against_draws_from_its_own_queue() -> None:
    config = LossConfig(queries=8, negatives=6, negative_groups=4, temperature=0.5)
    representations, labels = torch.randn(4, D, *SIZE, generator=generator(9)), some_labels(9)
    labels[labels == 3] = 255  # of class 3 there is no anchor
    pool = build_pool(labels, labels != 255, K)
    prototypes = Prototypes(torch.randn(K, D, generator=generator(10)), torch.ones(K, dtype=torch.bool))
    values = F.normalize(torch.randn(K, 12, D, generator=generator(11)), dim=2)
    entered = torch.tensor([0, 1, 5, 7, 12, 30, 12, 12, 12, 12, 12])  # of class 0 there is no negative
    draws = draw_samples(K, config, generator(12), CPU)
    ours = contrastive_loss(
        representations, pool, prototypes, pool.hard, config, draws, queues=Bank(values, entered)
    ).tolist()
    pixels = representations.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    for class_ in range(K):
        own = (labels.flatten() == class_).nonzero().flatten().tolist()
        held = min(12, int(entered[class_]))
        losses = []
        for query in range(8) if own and held else ():
            anchor = pixels[own[int(draws.anchors[class_, query] * len(own))]]
            of_group = draws.negatives[1, class_].view(4, 6)[query // 2]
            drawn = [values[class_, int(number * held)].double().numpy() for number in of_group]
            positive = prototypes.values[class_].double().numpy()
            losses.append(slow.anchor_loss(anchor, positive, np.array(drawn), 0.5))
        assert ours[class_] == pytest.approx(np.mean(losses) if losses else 0.0, rel=1e-5)
    assert [at for at in range(K) if ours[at] == 0.0] == [0, 3]


def test_positives_are_the_teachers_means_of_labelled_and_reliable_pixels_of_this_batch() -> None:
    state, made, output = young(U2PL)
    assert made.sums is not None
    assert made.sums.counts.sum() > (made.labels[:, ::4, ::4] != 255).sum()
    present = made.sums.counts > 0
    means = made.sums.sums[present] / made.sums.counts[present].unsqueeze(1)
    assert torch.allclose(output.prototypes.values[present], means, atol=1e-6)
    assert not state.prototypes.seen.any()


def test_anchors_are_no_pixels_of_which_the_teacher_is_unsure() -> None:
    _, made, output = young({**U2PL, "unreliable.anchor_confidence": 0.0})
    _, none, without = young({**U2PL, "unreliable.anchor_confidence": 1.0})
    assert (made.anchors != 255).any()
    assert (none.anchors == 255).all()
    assert (none.views[0].targets.indicator == 0).all()
    assert (output.statistics["share/valid"] > 0, without.statistics["share/valid"].item()) == (True, 0.0)
    assert without.losses["contrast"].item() == 0.0


def test_unlabelled_pixels_enter_the_queues_from_the_percentile_of_their_entropy_on() -> None:
    it = world({**U2PL, "unreliable.size": 900, "unreliable.entries": 900})
    it = it._replace(batch=it.batch._replace(labels=torch.full_like(it.batch.labels, 255)))
    step, share = 10, 0.2 * (1 - 10 / 20)
    bank = whole_step(*it[1:], it.config, StepContext(0, step)).bank
    assert it.batch.unlabelled is not None
    assert it.batch.inside is not None
    logits = it.teacher(it.batch.unlabelled).logits.detach()
    entropy = slow.entropies(upsample(logits, (32, 32)).double().numpy())
    inside = it.batch.inside.numpy()
    unsure = inside & (entropy >= np.percentile(entropy[inside], 100 * (1 - share)))
    no_labels = np.zeros((0, 8, 8), dtype=np.int64)
    expected = slow.negative_mask(logits.softmax(1).double().numpy(), no_labels, unsure[:, ::4, ::4], 3, 20)
    assert bank is not None
    assert expected.sum() > 100
    # Pixels in the percentile's bin are left out, as it is not whole among the share.
    assert bank.entered.sum().item() == pytest.approx(expected.sum(), rel=0.1)
    assert (bank.entered <= torch.as_tensor(expected.sum((0, 2, 3)))).all()


def test_the_contrast_of_a_step_is_against_the_queues_that_it_is_given() -> None:
    it, losses = world(U2PL), []
    for seed in (0, 1):
        values = F.normalize(torch.randn(K, 40, D, generator=generator(seed)), dim=2)
        losses.append(list(css_step(*it[1:], it.config, StepContext(0, 10), Bank(values, torch.full((K,), 40)))))
    (one,), (other,) = losses
    assert one.losses["contrast"] != other.losses["contrast"]
    assert one.losses["unsupervised"] == other.losses["unsupervised"]


def test_the_queues_are_filled_before_the_loss_and_only_once_a_step_in_parts() -> None:
    config, context = tiny_config({**U2PL, "schedule.accumulate": 2}), StepContext(0, 0)
    state = TrainState(config, LocalRun(device=CPU))
    batch = load_batch(open_splits(config.data), config, context, CPU)
    first, second = css_step(state.student, state.teacher, state.prototypes, batch, config, context, state.bank)
    assert first.bank is not None
    assert second.bank is not None
    assert first.bank.entered.max() == 7
    assert torch.equal(first.bank.entered, second.bank.entered)
    assert first.losses["contrast"] > 0


def test_a_training_resumes_with_its_queues() -> None:
    config = tiny_config({**U2PL, "schedule.steps": 8})
    state = train(config, LocalRun(device=CPU))
    assert state.bank is not None
    assert state.bank.values.shape == (K, 40, D)
    assert state.bank.entered.max() == 8 * 7
    other = TrainState(config, LocalRun(device=CPU))
    other.load_state_dict(state.state_dict())
    assert differences(other.bank._asdict(), state.bank._asdict()) == []  # type: ignore[union-attr]


def test_permuting_the_classes_permutes_the_queues_and_leaves_the_losses() -> None:
    original = world({**U2PL, "ema.teacher_momentum": 0.5})
    before, after = step_of(original), step_of(permuted(original))
    assert before.bank is not None
    assert after.bank is not None
    assert (before.bank.entered > 0).sum() > K // 2
    assert torch.equal(before.bank.entered[ORDER], after.bank.entered)
    assert torch.allclose(before.bank.values[ORDER], after.bank.values, atol=1e-6)  # float32, of length 1
    for name in ("supervised", "unsupervised"):
        assert before.losses[name].item() == pytest.approx(after.losses[name].item(), rel=1e-5)
    assert before.losses["contrast"] > 0
    assert NEW_NAME[ORDER].tolist() == list(range(K))


def test_a_report_says_which_pixels_of_an_image_are_below_the_percentile() -> None:
    config = tiny_config({**U2PL, "thresholds.percentile": 0.5})
    it = world({**U2PL, "thresholds.percentile": 0.5})  # a teacher that is sure here and unsure there
    source = open_splits(config.data).unlabelled
    shares = []
    for passed in (0.0, 0.5, 1.0):
        counts = count_pseudo_labels(it.teacher, it.prototypes, source, config, LocalRun(device=CPU), False, passed)
        shares.append((counts.kept.sum() / counts.predicted.sum()).item())
    assert shares == pytest.approx([0.5, 0.75, 1.0], abs=0.02)  # bins


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bank.weight": 0.1}, "bank.weight must be 0 with loss.contrast=unreliable, whose queues take its place"),
        ({"ema.prototype_source": "student"}, "ema.prototype_source must be teacher with loss.contrast=unreliable"),
        ({"unreliable.low_rank": 11}, r"low_rank must be below the number of classes \(11\).*got 11: lower it"),
        ({"unreliable.high_rank": 3}, r"low_rank must be below high_rank \(3\), got 3: lower it or raise high_rank"),
        ({"unreliable.size": 6}, r"entries must be at most size \(6\), got 7: lower it or raise size"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config({**U2PL, **settings})


def test_a_histogram_is_sent_in_less_than_64_kib() -> None:
    assert 4 * BINS < 64 * 1024
