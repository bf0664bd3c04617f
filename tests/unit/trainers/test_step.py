"""Laws of one training step."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import prototypes as slow
from reference.tiny import differences, tiny_config, whole_step
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.func import functional_call

from trainers.adversary import make_discriminator
from trainers.config import TrainConfig
from trainers.css.prototypes import Prototypes
from trainers.css.pseudo_labels import downsample_labels, upsample
from trainers.data.splits import open_splits
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.methods import METHODS
from trainers.models.heads import Dense
from trainers.models.pair import Pair, members
from trainers.state import TrainState
from trainers.step import StepOutput, css_step
from trainers.targets import Batch, StepContext

K, D = 11, 16
DEVICE = torch.device("cpu")


STILL = {
    "augment.strong.mix": "none",
    "augment.strong.jitter": 0.0,
    "augment.strong.blur": 0.0,
    "augment.strong.scale": (1.0, 1.0),
    "augment.strong.shift": 0.0,
}
"""Strong augmentation that leaves images as they are."""


def some_prototypes() -> Prototypes:
    draws = torch.Generator().manual_seed(0)
    return Prototypes(torch.randn(K, D, generator=draws), torch.arange(K) != 4)


def batch_of(config: TrainConfig, step: int = 0) -> Batch:
    return load_batch(open_splits(config.data), config, StepContext(config.seed, step), DEVICE)


def all_parts(
    student: Any,
    teacher: Any,
    prototypes: Prototypes,
    batch: Batch,
    config: TrainConfig,
    context: StepContext,
    discriminator: Any = None,
) -> StepOutput:
    """The sum of the parts of a step."""
    parts = list(css_step(student, teacher, prototypes, batch, config, context, None, discriminator))
    losses, statistics = (
        {name: torch.stack([part[name] for part in column]).sum() for name in column[0]}
        for column in ([part.losses for part in parts], [part.statistics for part in parts])
    )
    return StepOutput(losses, statistics, parts[-1].prototypes)


def take_step(
    overrides: Mapping[str, Any] | None = None, prototypes: Prototypes | None = None, batch: Batch | None = None
) -> tuple[TrainState, StepOutput]:
    """One step of a fresh state, late enough for `cross` to have warmed up; `L_u` reads every pixel."""
    config = tiny_config({"thresholds.delta_u": 0.0, **(overrides or {})})
    state = TrainState(config, LocalRun(device=DEVICE))
    prototypes = some_prototypes() if prototypes is None else prototypes
    batch = batch or batch_of(config)
    networks, context = (state.wrapped, state.teacher), StepContext(config.seed, 10)
    return state, all_parts(*networks, prototypes, batch, config, context, state.judging)


def learned(state: TrainState) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in state.student.named_parameters() if parameter.requires_grad}


def total(output: StepOutput) -> Tensor:
    return torch.stack(list(output.losses.values())).sum()


VARIANTS = [
    *(
        {"css.label_strategy": strategy, "css.indicator": indicator}
        for strategy in ("logit", "representation", "mix", "cross")
        for indicator in ("similarity", "confidence")
    ),
    {"ema.prototype_source": "student", "loss.unsupervised": "image_share"},
    {"augment.strong.mix": "classmix"},
    {"augment.strong.mix": "cutout"},
    {"model.norm": "group", "thresholds.unit": "of_maximum"},
    {"loss.lambda_c": 0.0},
    {"loss.supervised": "ohem", "loss.class_weights": tuple(1.0 + at for at in range(K))},
    {"schedule.joint_forward": False},
    {"schedule.accumulate": 2, "ema.prototype_source": "student"},
    {"loss.class_weights": tuple(1.0 + at for at in range(K)), "schedule.accumulate": 2},
    {"model.arch": "light", "model.encoder": "mobilenetv3_small_050", "model.head_width": 16},
    {"model.arch": "light", "model.encoder": "convnext_atto", "model.head_width": 16, "model.freeze": "all"},
    *METHODS.values(),
    {"bank.weight": 0.1, "bank.pixels": "labelled", "schedule.accumulate": 2},
    {"css.label_strategy": "mix", "loss.contrast": "unreliable", "schedule.accumulate": 2},
    {"loss.lambda_c": 0.0, "css.label_strategy": "logit", "thresholds.kind": "entropy_percentile"},
    {"loss.lambda_w": 1.0, "css.veto": True, "schedule.accumulate": 2},
    {**METHODS["supervised"], "loss.lambda_w": 1.0},
    {"model.auxiliary": "inner", "loss.auxiliary_targets": "all", "schedule.joint_forward": False},
    {"css.indicator": "discriminator", "schedule.accumulate": 2},
    {
        **METHODS["prcl"],
        "model.auxiliary": "inner",
        "loss.auxiliary_targets": "all",
        "loss.lambda_w": 1.0,
        "css.veto": True,
        "adversary.weight_labelled": 0.01,
        "adversary.weight_unlabelled": 0.001,
        "schedule.joint_forward": False,
        "schedule.accumulate": 2,
    },
]


def describe(overrides: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in overrides.values())


@pytest.mark.parametrize("overrides", VARIANTS, ids=describe)
def test_a_step_and_its_gradients_never_wait_for_the_device(overrides: Mapping[str, Any]) -> None:
    # Fake tensors have no values: whatever would read one raises, and so does a shape that depends on values.
    config = tiny_config(overrides)
    state = TrainState(config, LocalRun(device=DEVICE))
    batch = batch_of(config)
    with FakeTensorMode() as mode:

        def on_fakes(module: nn.Module) -> tuple[dict[str, Tensor], Any]:
            held = {
                name: mode.from_tensor(value) for name, value in (*module.named_parameters(), *module.named_buffers())
            }

            def call(*inputs: Any) -> Any:
                return functional_call(module, held, inputs)

            call.feature_channels = module.feature_channels  # type: ignore[attr-defined]
            return held, call

        helds, students = zip(*map(on_fakes, members(state.student)), strict=True)
        _, teachers = zip(*map(on_fakes, members(state.teacher)), strict=True)
        student, teacher = (each[0] if len(each) == 1 else Pair(*each) for each in (students, teachers))
        fakes = Batch(*(None if part is None else mode.from_tensor(part) for part in batch))
        prototypes = Prototypes(*(mode.from_tensor(part) for part in some_prototypes()))
        discriminator = make_discriminator(config)
        total(all_parts(student, teacher, prototypes, fakes, config, StepContext(0, 10), discriminator)).backward()
        missing = [name for held in helds for name, value in held.items() if value.requires_grad and value.grad is None]
    assert missing == []


@pytest.mark.parametrize("read", [lambda x: bool((x > 0).any()), lambda x: x[x > 0], lambda x: x.max().item()])
def test_fake_tensors_notice_what_waits_for_the_device(read: Any) -> None:
    with FakeTensorMode(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        read(torch.rand(3))


@pytest.mark.parametrize("overrides", VARIANTS, ids=describe)
def test_every_parameter_of_the_student_gets_a_finite_gradient(overrides: Mapping[str, Any]) -> None:
    # Also where it is zero: ranks that average gradients must have the same ones.
    state, output = take_step(overrides)
    total(output).backward()
    without = [
        name
        for name, parameter in learned(state).items()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert without == []


@pytest.mark.parametrize("overrides", VARIANTS, ids=describe)
def test_no_gradient_reaches_the_teacher_or_the_prototypes(overrides: Mapping[str, Any]) -> None:
    config = tiny_config(overrides)
    state = TrainState(config, LocalRun(device=DEVICE))
    state.teacher.requires_grad_(True)  # even if it asked for one
    prototypes = Prototypes(some_prototypes().values.requires_grad_(), some_prototypes().seen)
    context = StepContext(0, 10)
    output = all_parts(state.wrapped, state.teacher, prototypes, batch_of(config), config, context, state.judging)
    total(output).backward()
    assert prototypes.values.grad is None
    assert all(parameter.grad is None for parameter in state.teacher.parameters())


def test_a_step_changes_neither_the_teacher_nor_the_prototypes() -> None:
    prototypes = some_prototypes()
    state, _ = take_step(prototypes=prototypes)
    assert differences(state.teacher.state_dict(), TrainState(state.config, LocalRun()).teacher.state_dict()) == []
    assert differences(prototypes, some_prototypes()) == []


def test_statistics_have_no_gradient() -> None:
    _, output = take_step()
    assert not any(value.requires_grad for value in output.statistics.values())


@pytest.mark.parametrize("overrides", VARIANTS[:8], ids=describe)
def test_shares_are_between_zero_and_one(overrides: Mapping[str, Any]) -> None:
    _, output = take_step(overrides)
    assert all(0.0 <= value.item() <= 1.0 for value in output.statistics.values())


def test_losses_carry_no_weights() -> None:
    _, one = take_step({"loss.lambda_u": 0.5, "loss.lambda_c": 0.1})
    _, other = take_step({"loss.lambda_u": 2.0, "loss.lambda_c": 0.7})
    assert differences(one.losses, other.losses) == []


@pytest.mark.parametrize("strategy", ["representation", "mix"])
def test_before_any_prototype_exists_unlabelled_pixels_give_no_loss(strategy: str) -> None:
    _, output = take_step({"css.label_strategy": strategy}, Prototypes.empty(K, D))
    assert output.losses["unsupervised"].item() == 0.0


@pytest.mark.parametrize("overrides", VARIANTS, ids=describe)
def test_a_batch_without_any_label_has_zero_supervised_loss_and_finite_gradients(overrides: Mapping[str, Any]) -> None:
    batch = batch_of(tiny_config())
    state, output = take_step(overrides, batch=batch._replace(labels=torch.full_like(batch.labels, 255)))
    total(output).backward()
    assert output.losses["supervised"].item() == 0.0
    assert all(parameter.grad.isfinite().all() for parameter in learned(state).values())


def nothing() -> Batch:
    """Images of which no pixel is labelled, and of which no unlabelled one lies inside of its image."""
    batch = batch_of(tiny_config())
    assert batch.inside is not None
    return batch._replace(labels=torch.full_like(batch.labels, 255), inside=torch.zeros_like(batch.inside))


@pytest.mark.parametrize("overrides", VARIANTS, ids=describe)
def test_a_batch_of_which_every_pixel_is_ignored_has_zero_losses_and_no_gradient(overrides: Mapping[str, Any]) -> None:
    # With prototypes, so that both spaces would have labels to give.
    state, output = take_step(overrides, batch=nothing())
    total(output).backward()
    assert {name: value.item() for name, value in output.losses.items()} == dict.fromkeys(output.losses, 0.0)
    assert not any(parameter.grad.any() for parameter in learned(state).values())  # a NaN is not zero either


@pytest.mark.parametrize("overrides", VARIANTS, ids=describe)
def test_a_batch_of_which_every_pixel_is_ignored_has_shares_of_zero_and_leaves_the_prototypes(
    overrides: Mapping[str, Any],
) -> None:
    _, output = take_step(overrides, batch=nothing())
    assert {name: value.item() for name, value in output.statistics.items()} == dict.fromkeys(output.statistics, 0.0)
    assert differences(output.prototypes, some_prototypes()) == []


NOTHING_VALID = {"css.label_strategy": "mix", "css.indicator_temperature": 0.25, "thresholds.delta_s": 0.99}


def test_where_every_pixel_is_ignored_all_losses_are_zero() -> None:
    # No label, and no prototype from which the mixed labels could come.
    batch = batch_of(tiny_config())
    ignored = batch._replace(labels=torch.full_like(batch.labels, 255))
    _, output = take_step(NOTHING_VALID, Prototypes.empty(K, D), ignored)
    assert {name: value.item() for name, value in output.losses.items()} == {
        "supervised": 0.0,
        "unsupervised": 0.0,
        "contrast": 0.0,
    }


def test_where_every_pixel_is_ignored_no_class_becomes_seen() -> None:
    batch = batch_of(tiny_config())
    ignored = batch._replace(labels=torch.full_like(batch.labels, 255))
    _, output = take_step(NOTHING_VALID, Prototypes.empty(K, D), ignored)
    assert not output.prototypes.seen.any()


@pytest.mark.parametrize("source", ["teacher", "student"])
def test_prototypes_are_means_of_the_network_that_the_config_names(source: str) -> None:
    # Before any prototype exists no unlabelled pixel is valid, so they are means over labelled pixels alone.
    config = tiny_config({"model.norm": "group", "ema.prototype_source": source, **NOTHING_VALID})
    state = TrainState(config, LocalRun(device=DEVICE))
    with torch.no_grad():
        state.student.heads.represent[1].weight.mul_(-2.0)  # so that student and teacher differ
    batch = batch_of(config)
    output = whole_step(state.student, state.teacher, Prototypes.empty(K, D), batch, config, StepContext(0, 10))
    network = {"teacher": state.teacher, "student": state.student}[source]
    with torch.no_grad():
        representations = network(batch.images).representations
    label = downsample_labels(batch.labels, representations.shape[-2:])
    means = slow.class_means(representations.double().numpy(), label.numpy(), K)
    assert output.prototypes.seen.nonzero().flatten().tolist() == sorted(means)
    for class_, mean in means.items():
        # Sums of a few hundred float32 numbers of order one, of another batch size in the convolutions.
        assert np.allclose(output.prototypes.values[class_].numpy(), mean, atol=1e-5)


def test_two_steps_at_one_place_are_the_same_bit_by_bit() -> None:
    (_, one), (_, other) = take_step(), take_step()
    assert differences(one, other) == []


def test_the_supervised_loss_is_the_mean_over_the_labelled_pixels() -> None:
    config = tiny_config({"model.norm": "group"})
    batch = batch_of(config)
    batch.labels[:, :20] = 255
    state, output = take_step({"model.norm": "group"}, batch=batch)
    with torch.no_grad():
        logits = upsample(state.student(batch.images).logits, (32, 32))
    expected = F.cross_entropy(logits, batch.labels, ignore_index=255)
    # float32, in a batch of another size.
    assert math.isclose(output.losses["supervised"].item(), expected.item(), rel_tol=1e-5)


def test_the_unsupervised_loss_is_the_mean_over_confident_pixels_of_what_the_student_says_of_the_teachers_label() -> (
    None
):
    # A student that still is its teacher, and sees the same images: minus the log of the confidence.
    whole = {"augment.weak.scale": (1.0, 1.0), **STILL}
    overrides = {"model.norm": "group", "css.label_strategy": "logit", "thresholds.delta_u": 0.15, **whole}
    state, output = take_step(overrides)
    with torch.no_grad():
        dense = state.teacher(batch_of(state.config).unlabelled)
    confidence = upsample(dense.logits, (32, 32)).softmax(1).amax(1)
    confident = confidence[confidence >= 0.15]
    assert 0 < len(confident) < confidence.numel()
    assert math.isclose(output.losses["unsupervised"].item(), -confident.log().mean().item(), rel_tol=1e-5)  # as above


def test_each_step_draws_contrastive_samples_of_its_own() -> None:
    config = tiny_config({"thresholds.delta_s": 0.9, **STILL})
    state = TrainState(config, LocalRun(device=DEVICE))
    batch = batch_of(config)
    places = (StepContext(0, 10), StepContext(0, 11), StepContext(1, 10))
    outputs = [
        whole_step(state.student, state.teacher, some_prototypes(), batch, config, context) for context in places
    ]
    assert len({output.losses["contrast"].item() for output in outputs}) == 3


class Oracle(nn.Module):
    """Reads the class of a pixel from its brightness, and represents it by an axis of its own."""

    def forward(self, images: Tensor) -> Dense:
        label = (images[:, 0, ::4, ::4] * 255).round().long()
        axes = torch.eye(D)[label].permute(0, 3, 1, 2)
        return Dense(20.0 * axes[:, :K], axes)


def test_the_contrastive_loss_is_the_mean_over_the_classes_that_have_hard_pixels() -> None:
    labels = torch.tensor([1, 2, 3, 3]).repeat_interleave(4).expand(2, 16, 16)
    images = (labels.float() / 255).unsqueeze(1).expand(2, 3, 16, 16)
    axes = torch.eye(D)[:K]
    # Classes 1 and 2 lie opposite to their prototype, so their pixels are hard; the prototype of class 3 is where it
    # belongs. A momentum of zero puts all three there before the loss is taken.
    axes[1:3] *= -1
    config = tiny_config(
        {
            "css.label_strategy": "logit",
            "css.indicator_temperature": 0.25,
            "thresholds.delta_w": 0.3,
            "thresholds.delta_s": 0.5,
            "ema.prototype_momentum": 0.0,
            "augment.weak.scale": (1.0, 1.0),
            **STILL,
        }
    )
    prototypes = Prototypes(axes, torch.ones(K, dtype=torch.bool))
    output = whole_step(Oracle(), Oracle(), prototypes, Batch(images, labels, images), config, StepContext(0, 10))
    # Of 16 negatives each has cosine 0, the positive has cosine 1.
    one_class = math.log(1 + 16 * math.exp(-1 / config.loss.temperature))
    assert math.isclose(output.losses["contrast"].item(), one_class, rel_tol=1e-5)  # float32


def test_what_lies_outside_of_an_unlabelled_image_asks_for_nothing() -> None:
    overrides = {"css.label_strategy": "logit", **STILL}
    inside = torch.zeros(4, 32, 32, dtype=torch.bool)
    inside[:, :16] = True
    batch = batch_of(tiny_config(overrides))._replace(inside=inside)
    assert batch.unlabelled is not None
    state, output = take_step({**overrides, "model.norm": "group"}, batch=batch)
    with torch.no_grad():
        dense = state.teacher(batch.unlabelled)
    confidence = upsample(dense.logits, (32, 32)).softmax(1).amax(1)[inside]
    assert output.statistics["share/unsupervised"].item() == 0.5
    assert math.isclose(output.losses["unsupervised"].item(), -confidence.log().mean().item(), rel_tol=1e-5)  # float32


def test_magnified_below_the_crop_an_unlabelled_image_is_surrounded_by_nothing() -> None:
    config = tiny_config({"augment.weak.scale": (0.5, 0.5)})
    batch = batch_of(config)
    assert batch.inside is not None
    assert batch.inside.float().mean().item() == pytest.approx(0.25)
