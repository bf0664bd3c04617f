"""Representations that are Gaussians (PRCL): score, prototypes, contrast, the head for variances."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import prcl as slow
from reference.tiny import tiny_config, whole_step
from test_permutation import world
from torch import Tensor

from trainers.config import LossConfig
from trainers.cost import step_cost
from trainers.css.contrast import SampleDraws, Variances, build_pool, contrastive_loss, draw_samples
from trainers.css.likelihood import Gaussians, likelihood_score, log_sum_exp_of_scores
from trainers.css.prototypes import Prototypes, class_sums, update_prototypes
from trainers.errors import ConfigError
from trainers.local_run import LocalRun
from trainers.methods import METHODS
from trainers.models.build import build_model
from trainers.models.heads import VARIANCE_HEAD
from trainers.state import LR_FACTOR, TrainState
from trainers.targets import StepContext

K, D, SIZE, TAU = 4, 5, (3, 4), 0.3
CPU = torch.device("cpu")
PRCL: dict[str, Any] = {**METHODS["prcl"], "thresholds.delta_s": 0.3}
GAUSSIAN = {"model.representation": "gaussian", "ema.prototype_momentum": 0.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_gaussians(*shape: int, seed: int = 0) -> Gaussians:
    """Of double precision, with means of length 1 and variances from 0.05 on."""
    means = torch.randn(*shape, D, generator=generator(seed), dtype=torch.float64)
    spread = torch.rand(*shape, D, generator=generator(seed + 1), dtype=torch.float64)
    return Gaussians(F.normalize(means, dim=-1), 0.05 + 0.95 * spread)


class Pixels:
    """12 pixels as maps: classes 0 and 1 have hard and easy pixels, 2 easy ones alone, 3 none; two are not valid."""

    label = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 255, 255]).view(1, *SIZE)
    hard = torch.tensor([1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0]).bool().view(1, *SIZE)

    def __init__(self) -> None:
        self.means = torch.randn(1, D, *SIZE, generator=generator(3))
        self.variances = 0.05 + 0.95 * torch.rand(1, D, *SIZE, generator=generator(4))
        self.sums = class_sums(self.means, self.label, K, self.variances)
        self.prototypes = update_prototypes(Prototypes.empty(K, D), self.sums, 0.0)

    def of_class(self, class_: int, hard_alone: bool = False) -> list[slow.Gaussian]:
        """Hard ones first, as they lie in the pool."""
        means, variances = (maps[0].flatten(1).T.double().numpy() for maps in (self.means, self.variances))
        label, hard = self.label.flatten(), self.hard.flatten()
        kinds = (True,) if hard_alone else (True, False)
        at = [at for kind in kinds for at in ((label == class_) & (hard == kind)).nonzero().flatten().tolist()]
        return [(means[pixel], variances[pixel]) for pixel in at]

    def losses(self, config: LossConfig, draws: SampleDraws, spread: float | None = None) -> Tensor:
        """[K], of variances that are all alike where a spread is given."""
        pool = build_pool(self.label, self.hard, K)
        variances = Variances(self.variances, self.sums.variances)
        if spread is not None:
            variances = Variances(*(torch.full_like(each, spread) for each in variances))
        return contrastive_loss(self.means, pool, self.prototypes, pool.hard, config, draws, variances=variances)


def settings_of(temperature: float = TAU) -> LossConfig:
    return LossConfig(queries=8, negatives=6, negative_groups=4, temperature=temperature)


def test_the_score_is_that_of_the_equation_and_symmetric() -> None:
    one, other = some_gaussians(3, 1, seed=0), some_gaussians(1, 4, seed=5)
    scores = likelihood_score(one, other)
    for i, j in np.ndindex(3, 4):
        pair = (one.means[i, 0], one.variances[i, 0]), (other.means[0, j], other.variances[0, j])
        assert scores[i, j].item() == pytest.approx(slow.score(*((m.numpy(), v.numpy()) for m, v in pair)), rel=1e-12)
    assert torch.equal(scores, likelihood_score(other, one))


def test_the_score_is_the_mean_log_likelihood_of_the_difference_but_for_a_constant() -> None:
    one, other = some_gaussians(7, seed=0), some_gaussians(7, seed=5)
    spread = (one.variances + other.variances).sqrt()
    densities = torch.distributions.Normal(0.0, spread).log_prob(one.means - other.means).mean(dim=1)
    assert torch.allclose(likelihood_score(one, other), densities + 0.5 * math.log(2 * math.pi), atol=1e-12)


@pytest.mark.parametrize("numbers", [1, 3 * 6 * D * 2, 10**6], ids=["a group a block", "two", "all"])
def test_log_sums_and_their_gradients_are_those_of_autograd_whatever_the_blocks(numbers: int) -> None:
    groups, queries, negatives = 5, 3, 6
    anchors, pixels = some_gaussians(groups, queries, seed=0), some_gaussians(20, seed=5)
    stretched = Gaussians(
        pixels.means * torch.linspace(0.1, 9.0, 20, dtype=torch.float64).unsqueeze(1), pixels.variances
    )
    at = torch.randint(0, 20, (groups, negatives), generator=generator())
    outer = torch.randn(groups, queries, generator=generator(9), dtype=torch.float64)
    drawn = Gaussians(*(each[at].unsqueeze(1) for each in pixels))
    results = []
    for whole in (True, False):
        mine = Gaussians(*(each.clone().requires_grad_() for each in anchors))
        pairs = Gaussians(*(each.unsqueeze(2) for each in mine))
        of = (
            (likelihood_score(pairs, drawn) / TAU).logsumexp(2)
            if whole
            else (log_sum_exp_of_scores(mine, stretched, at, TAU, numbers))
        )
        results.append((of, *torch.autograd.grad((of * outer).sum(), mine)))
    for expected, ours in zip(*results, strict=True):
        assert torch.allclose(ours, expected, atol=1e-12)


def test_the_contrast_is_that_of_each_anchor_against_the_negatives_that_were_drawn() -> None:
    pixels, config = Pixels(), settings_of()
    draws = draw_samples(K, config, generator(12), CPU)
    ours = pixels.losses(config, draws).tolist()
    prototypes = {class_: slow.prototype(pixels.of_class(class_)) for class_ in range(3)}
    for class_ in (0, 1):
        chances = slow.class_probabilities(class_, prototypes, TAU)
        edges, others = np.cumsum(list(chances.values())), list(chances)
        hard = pixels.of_class(class_, hard_alone=True)
        losses = []
        for query in range(8):
            group = slice(query // 2 * 6, query // 2 * 6 + 6)
            drawn = []
            for of_class, of_pixel in draws.negatives[:, class_, group].T.tolist():
                members = pixels.of_class(others[int(np.searchsorted(edges, of_class))])
                drawn.append(members[int(of_pixel * len(members))])
            anchor = hard[int(draws.anchors[class_, query] * len(hard))]
            losses.append(slow.anchor_loss(anchor, prototypes[class_], drawn, TAU))
        assert ours[class_] == pytest.approx(np.mean(losses), rel=1e-5)
    assert ours[2:] == [0.0, 0.0]


def test_of_variances_that_are_all_alike_the_contrast_is_that_of_cosines() -> None:
    # -1/2 |m - m'|^2 / (2 v) / D = (cosine - 1) / (2 v D): a cosine at another temperature.
    pixels, spread = Pixels(), 0.4
    draws = draw_samples(K, settings_of(), generator(2), CPU)
    ours = pixels.losses(settings_of(), draws, spread)
    pool = build_pool(pixels.label, pixels.hard, K)
    config = settings_of(TAU * 2 * spread * D)
    cosines = contrastive_loss(pixels.means, pool, pixels.prototypes, pool.hard, config, draws)
    assert (ours > 0).sum() == 2
    assert torch.allclose(ours, cosines, atol=1e-5)


def test_gradients_reach_means_and_variances_of_anchors_alone() -> None:
    pixels = Pixels()
    pixels.means.requires_grad_()
    pixels.variances.requires_grad_()
    loss = pixels.losses(settings_of(), draw_samples(K, settings_of(), generator(), CPU)).sum()
    for gradient in torch.autograd.grad(loss, (pixels.means, pixels.variances)):
        moved = gradient.abs().sum(1) > 0
        assert moved.any()
        assert not (moved & ~(pixels.hard & (pixels.label != 255))).any()


@pytest.mark.parametrize("label", [255, 1], ids=["nothing confident", "a single class"])
def test_where_nothing_can_be_told_apart_loss_and_gradient_are_zero(label: int) -> None:
    pixels = Pixels()
    pixels.label = torch.full_like(pixels.label, label)
    pixels.sums = class_sums(pixels.means, pixels.label, K, pixels.variances)
    pixels.prototypes = update_prototypes(Prototypes.empty(K, D), pixels.sums, 0.0)
    pixels.means.requires_grad_()
    pixels.variances.requires_grad_()
    loss = pixels.losses(settings_of(), draw_samples(K, settings_of(), generator(), CPU)).sum()
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, (pixels.means, pixels.variances)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_prototype_is_the_product_of_the_gaussians_of_its_class() -> None:
    pixels = Pixels()
    for class_ in range(3):
        mean, variance = slow.prototype(pixels.of_class(class_))
        assert np.allclose(pixels.prototypes.values[class_].numpy(), mean, atol=1e-6)
        assert np.allclose(pixels.sums.variances[class_].numpy(), variance, rtol=1e-5)
        assert (variance < np.min([variance for _, variance in pixels.of_class(class_)], axis=0)).all()
    assert pixels.prototypes.seen.tolist() == [True, True, True, False]
    assert (pixels.sums.variances[3] == 1).all()


def test_of_variances_of_one_a_prototype_is_the_mean() -> None:
    pixels = Pixels()
    ones, plain = (
        class_sums(pixels.means, pixels.label, K, torch.ones_like(pixels.means)),
        class_sums(pixels.means, pixels.label, K),
    )
    empty = Prototypes.empty(K, D)
    assert torch.equal(update_prototypes(empty, ones, 0.0).values, update_prototypes(empty, plain, 0.0).values)
    assert torch.equal(ones.counts, plain.counts.unsqueeze(1).expand(K, D))


def test_sums_of_two_halves_are_those_of_the_whole() -> None:
    pixels = Pixels()
    halves = [
        class_sums(*(maps[..., part] for maps in (pixels.means, pixels.label)), K, pixels.variances[..., part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    for whole, *parts in zip(pixels.sums, *halves, strict=True):
        assert torch.allclose(whole, torch.stack(parts).sum(0), atol=1e-5)


@pytest.mark.parametrize("arch", [{}, {"model.norm": "group", "model.representation_dim": 9}], ids=["batch", "group"])
def test_the_head_for_variances_leaves_the_rest_of_the_network_as_it_is(arch: dict[str, Any]) -> None:
    point, gaussian = (build_model(tiny_config({**arch, **more}).model, 11, 0, CPU) for more in ({}, GAUSSIAN))
    parameters = gaussian.state_dict()
    assert all(torch.equal(value, parameters[name]) for name, value in point.state_dict().items())
    assert {VARIANCE_HEAD in name for name in parameters.keys() - point.state_dict().keys()} == {True}
    dense = gaussian(torch.rand(2, 3, 32, 32, generator=generator()))
    assert dense.variances.shape == dense.representations.shape
    assert ((dense.variances > 0) & (dense.variances <= 1)).all()
    assert dense.variances.std() > 0.01
    assert point(torch.rand(2, 3, 32, 32)).variances is None


def test_a_head_that_is_sure_beyond_rounding_has_a_variance_that_can_be_divided_by() -> None:
    network = build_model(tiny_config(GAUSSIAN).model, 11, 0, CPU)
    with torch.no_grad():
        network.heads.variance[1].bias.fill_(-1e4)  # type: ignore[union-attr, index, operator]
        dense = network(torch.rand(2, 3, 32, 32, generator=generator()))
    assert dense.variances.min() > 0
    assert dense.variances.reciprocal().isfinite().all()


def test_the_head_for_variances_has_a_learning_rate_of_its_own_beside_the_encoders() -> None:
    config = tiny_config({**PRCL, "optimizer.encoder_lr_factor": 0.5, "optimizer.lr": 0.32})
    state = TrainState(config, LocalRun(device=CPU))
    names = {id(parameter): name for name, parameter in state.student.named_parameters()}
    heads, encoder, variance = ({names[id(each)] for each in group["params"]} for group in state.optimizer.param_groups)
    assert [group.get(LR_FACTOR) for group in state.optimizer.param_groups] == [None, 0.5, 1 / 64]
    assert state.optimizer.param_groups[2]["lr"] == 0.32 / 64
    assert {name.partition(".")[0] for name in encoder} == {"encoder"}
    assert all(VARIANCE_HEAD in name for name in variance)
    assert heads | encoder | variance == set(names.values())
    assert len(heads) + len(encoder) + len(variance) == len(names)


@pytest.mark.parametrize("source", ["student", "teacher"])
def test_a_step_contrasts_hard_pixels_and_moves_the_head_for_variances(source: str) -> None:
    it = world({**PRCL, "ema.prototype_source": source, "loss.temperature": 0.01})
    output = whole_step(*it[1:], it.config, StepContext(0, 10))
    assert 0 < output.statistics["share/hard"] < 1
    assert output.losses["contrast"] > 0
    output.losses["contrast"].backward()
    moved = {name for name, each in it.student.named_parameters() if each.grad is not None and each.grad.any()}
    assert {name for name in moved if VARIANCE_HEAD in name}
    assert {name for name in moved if "heads.represent." in name}
    assert not {name for name in moved if "heads.segment." in name}


def test_a_step_in_which_nothing_is_labelled_has_no_contrast_and_keeps_its_prototypes() -> None:
    it = world({**PRCL, "thresholds.delta_w": 0.998, "thresholds.delta_s": 0.999, "thresholds.delta_u": 1.0})
    batch = it.batch._replace(labels=torch.full_like(it.batch.labels, 255))
    output = whole_step(it.student, it.teacher, it.prototypes, batch, it.config, StepContext(0, 10))
    assert {name: loss.item() for name, loss in output.losses.items()} == dict.fromkeys(output.losses, 0.0)
    torch.stack(list(output.losses.values())).sum().backward()
    assert all(each.grad is not None and not each.grad.any() for each in it.student.parameters())
    assert torch.equal(output.prototypes.values, it.prototypes.values)


def test_the_head_for_variances_and_its_sums_are_counted() -> None:
    point, gaussian = (
        step_cost(tiny_config({**PRCL, "model.representation": kind}), 2) for kind in ("point", "gaussian")
    )
    head = 24 * 16 + 2 * 16 + 16 * 16 + 16  # 1x1 convolution, BatchNorm, 1x1 convolution with a bias
    assert sum(gaussian.parameters) - sum(point.parameters) == head
    assert gaussian.traffic.prototypes - point.traffic.prototypes == 4 * 11 * (16 - 1)
    assert gaussian.flops.teacher - point.flops.teacher == 2 * 2 * 8 * 8 * (24 * 16 + 16 * 16)


@pytest.mark.parametrize("settings", [{"ema.prototype_momentum": 0.9}, {"loss.contrast": "unreliable"}], ids=str)
def test_settings_that_would_keep_gaussians_from_step_to_step_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model.representation=gaussian must have ema.prototype_momentum=0 and loss"):
        tiny_config({**GAUSSIAN, **settings})
