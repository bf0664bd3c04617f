"""Permuting the classes permutes results, and changes nothing else."""

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch
from reference.tiny import tiny_config, whole_step
from torch import Tensor, nn

from trainers.config import LossConfig, TrainConfig
from trainers.css.contrast import Variances, build_pool, contrastive_loss
from trainers.css.prototypes import Prototypes
from trainers.data.source import ImageSource, Samples
from trainers.data.splits import open_splits
from trainers.evaluate import confusion_matrix
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.methods import METHODS
from trainers.models.build import build_model
from trainers.quality import Counts, count_pseudo_labels
from trainers.scores import iou_scores
from trainers.step import StepOutput
from trainers.targets import Batch, StepContext, make_targets

K, D = 11, 16
CPU = torch.device("cpu")
ORDER = torch.randperm(K, generator=torch.Generator().manual_seed(7))
"""The new class i is the old class ORDER[i]."""
NEW_NAME = torch.full((256,), 255).scatter(0, ORDER, torch.arange(K))
"""The new number of each old class; 255 stays."""
NEAR = {"rel_tol": 1e-5, "abs_tol": 1e-7}
"""Softmax and sums over classes add float32 numbers in another order."""

THRESHOLDS = {"thresholds.delta_u": 0.3, "thresholds.delta_w": 0.12, "thresholds.delta_s": 0.3}
VARIANTS: list[Mapping[str, Any]] = [
    *(
        {"css.label_strategy": strategy, "css.indicator": indicator}
        for strategy in ("logit", "representation", "mix", "cross")
        for indicator in ("similarity", "confidence")
    ),
    {"ema.prototype_source": "student", "loss.unsupervised": "image_share"},
    {"loss.supervised": "ohem", "loss.ohem_threshold": 0.05, "loss.ohem_min_kept": 50},
    {"loss.class_weights": tuple(0.5 + 0.25 * at for at in range(K))},
    METHODS["unimatch_css"],
    # ClassMix draws classes by their numbers.
    {**METHODS["prcl"], "thresholds.delta_s": 0.3, "augment.strong.mix": "cutmix"},
]
each_variant = pytest.mark.parametrize("overrides", VARIANTS, ids=lambda case: " ".join(map(str, case.values())))


class World(NamedTuple):
    config: TrainConfig
    student: nn.Module
    teacher: nn.Module
    prototypes: Prototypes
    batch: Batch


def world(overrides: Mapping[str, Any]) -> World:
    """Networks that predict several classes, some pixels with confidence; one class without a prototype."""
    config = tiny_config({"model.norm": "group", "css.indicator_temperature": 0.25, **THRESHOLDS, **overrides})
    batch = load_batch(open_splits(config.data), config, StepContext(0, 0), CPU)
    student, teacher = (varied(build_model(config.model, K, seed, CPU), batch.images) for seed in (1, 2))
    values = torch.randn(K, D, generator=torch.Generator().manual_seed(0))
    return World(config, student, teacher, Prototypes(values, torch.arange(K) != 4), batch)


@torch.no_grad()
def varied(network: nn.Module, images: Tensor) -> nn.Module:
    """Give the maps of an untrained network zero mean and unit variance over these images."""
    output = network(images)
    for head, maps in ((network.heads.segment, output.logits), (network.heads.represent, output.representations)):
        spread, mean = torch.std_mean(maps, dim=(0, 2, 3))
        head[1].weight.div_(spread[:, None, None, None])
        head[1].bias.sub_(mean).div_(spread)
    return network


def permuted(original: World) -> World:
    weights = original.config.loss.class_weights
    loss = original.config.loss.model_copy(
        update={"class_weights": None if weights is None else tuple(weights[old] for old in ORDER.tolist())}
    )
    student, teacher = copy.deepcopy(original.student), copy.deepcopy(original.teacher)
    with torch.no_grad():
        for network in (student, teacher):
            rows = network.heads.segment[1]
            rows.weight.copy_(rows.weight[ORDER])
            rows.bias.copy_(rows.bias[ORDER])
    prototypes = Prototypes(original.prototypes.values[ORDER], original.prototypes.seen[ORDER])
    batch = original.batch._replace(labels=NEW_NAME[original.batch.labels])
    return World(original.config.model_copy(update={"loss": loss}), student, teacher, prototypes, batch)


def step_of(it: World) -> StepOutput:
    return whole_step(it.student, it.teacher, it.prototypes, it.batch, it.config, StepContext(0, 10))


class Both(NamedTuple):
    one: StepOutput
    other: StepOutput


def both_steps(overrides: Mapping[str, Any]) -> Both:
    original = world(overrides)
    return Both(step_of(original), step_of(permuted(original)))


@each_variant
def test_losses_of_labelled_and_unlabelled_pixels_and_all_shares_stay(overrides: Mapping[str, Any]) -> None:
    original, other = both_steps(overrides)
    assert 0 < original.statistics["share/unsupervised"] < 1
    assert 0 < original.statistics["share/hard"] < 1
    assert original.losses["unsupervised"] > 0
    for name in original.losses.keys() - {"contrast"}:
        assert math.isclose(original.losses[name].item(), other.losses[name].item(), **NEAR), name
    for name, share in original.statistics.items():
        assert math.isclose(share.item(), other.statistics[name].item(), **NEAR), name


@each_variant
def test_prototypes_are_permuted(overrides: Mapping[str, Any]) -> None:
    original, other = both_steps(overrides)
    assert torch.equal(original.prototypes.seen[ORDER], other.prototypes.seen)
    # Means of float32 numbers.
    assert torch.allclose(original.prototypes.values[ORDER], other.prototypes.values, atol=1e-6)


@each_variant
def test_pseudo_labels_are_permuted_and_their_indicators_stay(overrides: Mapping[str, Any]) -> None:
    original = world(overrides)
    other = permuted(original)
    before, after = (
        make_targets(it.teacher, it.prototypes, it.batch, it.config, StepContext(0, 10)).views[0].targets
        for it in (original, other)
    )
    assert before.logit_target.unique().numel() > 2
    assert torch.equal(NEW_NAME[before.logit_target], after.logit_target)
    assert torch.equal(NEW_NAME[before.representation_target], after.representation_target)
    assert torch.allclose(before.confidence, after.confidence, atol=1e-6)  # float32 in [0, 1]
    assert torch.allclose(before.indicator, after.indicator, atol=1e-6)


@pytest.mark.parametrize("overrides", VARIANTS[:8:3], ids=lambda case: " ".join(map(str, case.values())))
def test_gradients_of_the_segmentation_head_are_permuted(overrides: Mapping[str, Any]) -> None:
    original = world(overrides)
    other = permuted(original)
    rows = []
    for it in (original, other):
        losses = step_of(it).losses
        (losses["supervised"] + losses["unsupervised"]).backward()
        rows.append(it.student.heads.segment[1].weight.grad)
    assert rows[0].abs().max() > 1e-3
    assert torch.allclose(rows[0][ORDER], rows[1], atol=1e-6)  # sums of thousands of terms below 1e-3


class Renamed:
    """A source whose labels have the new numbers."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def fetch(self, indices: Any) -> Samples:
        samples = self._source.fetch(indices)
        return samples._replace(labels=NEW_NAME[samples.labels.long()].to(samples.labels.dtype))


def test_the_iou_of_each_class_is_permuted_and_its_mean_stays() -> None:
    original = world({})
    other = permuted(original)
    dev = open_splits(original.config.data).dev
    before = confusion_matrix(original.teacher, dev, original.config, LocalRun(device=CPU))
    after = confusion_matrix(other.teacher, Renamed(dev), original.config, LocalRun(device=CPU))
    assert torch.equal(before[ORDER][:, ORDER], after)
    scores, permuted_scores = iou_scores(before), iou_scores(after)
    assert torch.equal(scores.iou[ORDER].nan_to_num(-1.0), permuted_scores.iou.nan_to_num(-1.0))
    assert math.isclose(scores.miou, permuted_scores.miou, rel_tol=1e-12)  # float64


@pytest.mark.parametrize("strategy", ["logit", "representation", "mix", "cross"])
def test_counts_of_pseudo_labels_are_permuted(strategy: str) -> None:
    original = world({"css.label_strategy": strategy})
    other = permuted(original)
    source = open_splits(original.config.data).unlabelled

    def counted(it: World, images: ImageSource) -> Counts:
        return count_pseudo_labels(it.teacher, it.prototypes, images, it.config, LocalRun(device=CPU), False)

    before, after = counted(original, source), counted(other, Renamed(source))
    assert 0 < before.agreed.item() < before.predicted.sum()
    assert torch.equal(before.confusion[:, ORDER][:, :, ORDER], after.confusion)
    assert torch.equal(before.predicted[ORDER], after.predicted)
    assert torch.equal(before.kept[ORDER], after.kept)
    assert torch.equal(before.agreed, after.agreed)


def contrast_of(label: Tensor, prototypes: Prototypes, draws: int, spreads: Tensor | None) -> Tensor:
    """[draws, K], of the same pixels, hard where they were drawn so; of Gaussians where prototypes have variances."""
    random = torch.Generator().manual_seed(3)
    representations = torch.randn(2, D, 6, 6, generator=random)
    pool = build_pool(label, torch.rand(label.shape, generator=random) < 0.5, K)
    config = LossConfig(queries=16, negatives=16, negative_groups=4, temperature=0.5 if spreads is None else 0.02)
    of_pixels = 0.05 + 0.95 * torch.rand(representations.shape, generator=random)
    variances = None if spreads is None else Variances(of_pixels, spreads)
    losses = [
        contrastive_loss(
            representations, pool, prototypes, pool.hard, config, torch.Generator().manual_seed(seed),
            variances=variances,
        )
        for seed in range(draws)
    ]  # fmt: skip
    return torch.stack(losses).double()


@pytest.mark.parametrize("gaussian", [False, True], ids=["points", "Gaussians"])
def test_the_contrastive_loss_of_each_class_is_permuted_in_expectation(gaussian: bool) -> None:
    random = torch.Generator().manual_seed(1)
    label = torch.randint(0, K - 2, (2, 6, 6), generator=random)  # two classes are absent
    label[0, 0] = 255
    prototypes = Prototypes(torch.randn(K, D, generator=random), torch.arange(K) != 4)
    spreads = 0.01 + 0.1 * torch.rand(K, D, generator=random) if gaussian else None
    permuted_spreads = None if spreads is None else spreads[ORDER]
    draws = 300
    before = contrast_of(label, prototypes, draws, spreads)[:, ORDER]
    renamed = Prototypes(prototypes.values[ORDER], prototypes.seen[ORDER])
    after = contrast_of(NEW_NAME[label], renamed, draws, permuted_spreads)
    error = ((before.var(0) + after.var(0)) / draws).sqrt()
    assert (before.mean(0) > 0).sum() == K - 3
    # Of eleven classes, one in 1500 tries would be further off by chance.
    assert ((before.mean(0) - after.mean(0)).abs() <= 4 * error).all()
    assert not torch.equal(before, after)  # other samples, so this is more than the same numbers in another order
