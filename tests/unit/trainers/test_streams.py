"""Streams: what they draw, what the student sees in them, and the losses of methods that have several."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import unimatch as slow
from reference.tiny import differences, tiny_config, whole_step
from reference.vits import DPT
from torch import Tensor
from torch.utils._pytree import tree_map

from trainers.config import StreamConfig, StreamsConfig, TrainConfig
from trainers.css.prototypes import Prototypes
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.schedules import loss_weights
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.streams import Keep, draw_complementary, draw_dropout, draw_streams
from trainers.targets import Batch, StepContext, StudentBatch, make_targets

K, D = 11, 16
CPU = torch.device("cpu")
CONTEXT = StepContext(0, 10)
STILL = {
    "augment.strong.mix": "none", "augment.strong.jitter": 0.0, "augment.strong.blur": 0.0,
    "augment.strong.scale": (1.0, 1.0), "augment.strong.shift": 0.0,
}  # fmt: skip
"""Strong augmentation that leaves images as they are."""
TWO = {"streams.first.weight": 0.5, "streams.second.weight": 0.5}
PYRAMID, VIT = (8, 24), (32, 32, 32, 32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_prototypes() -> Prototypes:
    return Prototypes(torch.randn(K, D, generator=generator()), torch.arange(K) != 4)


def batch_of(config: TrainConfig) -> Batch:
    return load_batch(open_splits(config.data), config, CONTEXT, CPU)


def state_of(config: TrainConfig) -> TrainState:
    """A student that is not its teacher."""
    state = TrainState(config, LocalRun(device=CPU))
    with torch.no_grad():
        for parameter in state.student.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator(parameter.numel())))
    return state


def seen(overrides: Mapping[str, Any]) -> tuple[Batch, StudentBatch]:
    config = tiny_config({"css.label_strategy": "logit", **overrides})  # labels of every pixel
    batch = batch_of(config)
    return batch, make_targets(state_of(config).teacher, some_prototypes(), batch, config, CONTEXT)


def step_of(overrides: Mapping[str, Any]) -> tuple[TrainState, StepOutput]:
    config = tiny_config(overrides)
    state = state_of(config)
    return state, whole_step(state.student, state.teacher, some_prototypes(), batch_of(config), config, CONTEXT)


@pytest.mark.parametrize("channels", [PYRAMID, VIT], ids=["pyramid", "ViT"])
def test_two_complementary_views_share_out_the_channels(channels: tuple[int, ...]) -> None:
    first, second = draw_complementary(channels, 8, generator())
    assert [level.shape for level in first] == [(8, width) for width in channels]
    assert all((mine + theirs == 2).all() for mine, theirs in zip(first, second, strict=True))


def test_half_of_the_images_keep_all_channels_and_the_others_some_twice() -> None:
    first, _ = draw_complementary(VIT, 9, generator())
    whole = (first[0] == 1).all(dim=1)
    assert whole.sum() == 4
    assert set(first[0][~whole].unique().tolist()) == {0.0, 2.0}


def test_maps_of_a_vit_lose_the_same_channels_and_those_of_a_pyramid_their_own() -> None:
    of_vit, _ = draw_complementary(VIT, 8, generator())
    of_pyramid, _ = draw_complementary((16, 16, 8), 8, generator())
    assert all(torch.equal(level, of_vit[0]) for level in of_vit)
    assert not torch.equal(of_pyramid[0], of_pyramid[1])


def test_dropout_keeps_half_of_the_channels_twice_each_image_and_map_by_itself() -> None:
    drawn = draw_dropout((64, 64), 100, generator())
    assert set(drawn[0].unique().tolist()) == {0.0, 2.0}
    # Of 6400 fair draws the mean is off by 0.0125 in one standard deviation.
    assert all(level.mean().item() == pytest.approx(1.0, abs=0.06) for level in drawn)
    assert len(torch.cat(drawn).unique(dim=0)) == 200


def test_draws_of_ranks_are_shares_of_those_of_one_process() -> None:
    config = tiny_config(METHODS["unimatch"] | {"streams.second.features": "complementary"})
    images = torch.zeros(8, 3, 32, 32)
    whole = draw_streams(images, PYRAMID, config, 0, 3, 0, 1)
    halves = [draw_streams(images[:4], PYRAMID, config, 0, 3, rank, 2) for rank in range(2)]
    both = tree_map(lambda one, other: None if one is None else torch.cat([one, other]), *halves)
    assert differences(both, whole) == []


def test_two_strong_views_show_one_crop_with_draws_of_their_own() -> None:
    batch, student = seen({**STILL, **TWO, "augment.strong.jitter": 1.0})
    first, second = student.views
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(first.images, batch.unlabelled)
    assert differences(first.targets, second.targets) == []


def test_each_strong_view_has_boxes_of_its_own() -> None:
    _, student = seen(TWO)
    first, second = student.views
    assert not torch.equal(first.targets.logit_target, second.targets.logit_target)


def test_a_weak_view_is_the_image_that_the_teacher_labels() -> None:
    batch, student = seen({"streams.second.weight": 1.0, "streams.second.view": "weak"})
    _, still = seen(STILL)
    assert torch.equal(student.views[1].images, batch.unlabelled)
    assert differences(student.views[1].targets, still.views[0].targets) == []


def test_a_stream_may_be_augmented_otherwise_than_the_others() -> None:
    batch, student = seen({**STILL, **TWO, "streams.second.strong.mix": "none"})
    assert torch.equal(student.views[0].images, batch.unlabelled)
    assert not torch.equal(student.views[1].images, batch.unlabelled)


def test_another_stream_leaves_the_first_as_it_was() -> None:
    (_, one), (_, both) = (seen(overrides) for overrides in ({}, {"streams.second.weight": 1.0}))
    assert differences(both.views[0], one.views[0]) == []


def test_two_equal_streams_of_half_the_weight_are_one() -> None:
    gradients = []
    for streams in ({}, TWO):
        config = tiny_config(
            {**STILL, **streams, "css.label_strategy": "logit", "model.norm": "group", "thresholds.delta_u": 0.1}
        )
        state = state_of(config)
        batch = batch_of(config)
        output = whole_step(state.student, state.teacher, some_prototypes(), batch, config, CONTEXT)
        output.weighted(loss_weights(config, 10)).backward()
        gradients.append({name: parameter.grad for name, parameter in state.student.named_parameters()})
    one, two = gradients
    # float32, in a batch of another size.
    assert [name for name in one if not torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-6)] == []


def logits_of(state: TrainState, images: Tensor, keep: Keep | None) -> slow.Array:
    """What the student says of images when it is kept from channels, written out for the tiny network."""
    with torch.no_grad():
        features = state.student.encoder(images)
        if keep is not None:
            (kept,) = keep
            features = features * kept[:, :, None, None]
        small = state.student.heads(features).logits
        large = F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=True)
    return large.double().numpy()


@pytest.mark.parametrize("method", ["fixmatch", "unimatch", "unimatch_v2"])
def test_the_loss_of_a_method_is_that_of_its_equations(method: str) -> None:
    config = tiny_config(METHODS[method] | {"model.norm": "group", "thresholds.delta_u": 0.13})
    state, batch = state_of(config), batch_of(config)
    student = make_targets(state.teacher, some_prototypes(), batch, config, CONTEXT)
    views = [
        (logits_of(state, view.images, view.keep), view.targets.logit_target.numpy(),
         view.targets.confidence.double().numpy())
        for view in student.views
    ]  # fmt: skip
    labelled = slow.supervised(logits_of(state, batch.images, None), batch.labels.numpy())
    output = whole_step(state.student, state.teacher, some_prototypes(), batch, config, CONTEXT)
    ours = output.weighted(loss_weights(config, 10)).item()
    assert all(0.05 < (view[2] >= 0.13).mean() < 0.95 for view in views)
    assert math.isclose(ours, getattr(slow, method)(labelled, views, 0.13), rel_tol=1e-5)  # float32


@pytest.mark.parametrize("method", ["fixmatch", "unimatch", "unimatch_v2", "unimatch_css"])
def test_where_nothing_is_confident_no_stream_has_a_loss(method: str) -> None:
    _, output = step_of(METHODS[method] | {"thresholds.delta_u": 1.0})
    streams = {name: value.item() for name, value in output.losses.items() if name.startswith("unsupervised")}
    assert streams == dict.fromkeys(streams, 0.0)


def test_the_contrastive_loss_and_the_prototypes_are_of_the_first_stream() -> None:
    settings = {"model.norm": "group", "ema.prototype_source": "student"}
    (_, one), (_, both) = (
        step_of({**settings, **streams})
        for streams in ({}, {"streams.second.weight": 1.0, "streams.third.weight": 1.0})
    )
    # float32, in a batch of another size.
    assert torch.allclose(one.prototypes.values, both.prototypes.values, atol=1e-5)
    assert math.isclose(one.losses["contrast"].item(), both.losses["contrast"].item(), rel_tol=1e-4)


def test_a_vit_that_sees_complementary_channels_learns_from_both_views() -> None:
    state, output = step_of({**DPT, **METHODS["unimatch_v2"], "thresholds.delta_u": 0.0})
    assert output.losses["unsupervised"].item() != output.losses["unsupervised_second"].item()
    torch.stack(list(output.losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in state.student.parameters() if parameter.requires_grad)


def test_at_a_momentum_of_zero_the_student_labels() -> None:
    state = train(tiny_config(METHODS["unimatch"] | {"schedule.steps": 3}), LocalRun(device=CPU))
    teacher, student = (dict(network.named_parameters()) for network in (state.teacher, state.student))
    assert differences({**teacher}, {**student}) == []


def test_streams_at_their_defaults_are_no_part_of_the_hash() -> None:
    plain, written = TrainConfig(), TrainConfig(streams=StreamsConfig(second=StreamConfig(weight=0.0)))
    assert plain.hash == written.hash
    assert tiny_config({"streams.second.weight": 0.5}).hash != tiny_config().hash


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({f"streams.{name}.{path}": value for name in ("first", "second", "third")
          for path, value in (("weight", 1.0), ("features", "complementary"))},
         "features=complementary must be of at most two streams, got first, second, third: set one to dropout"),
        ({"streams.second.view": "weak", "streams.second.strong.mix": "none"},
         "strong must be null with view=weak, got an augmentation: set view=strong, or strong=null"),
        ({"streams.second.weight": -1}, "streams.second.weight: Input should be greater than or equal to 0, got -1"),
    ],
)  # fmt: skip
def test_streams_that_make_no_sense_are_refused(overrides: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        tiny_config(overrides)
    assert words in str(raised.value)
