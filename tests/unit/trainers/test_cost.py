"""The cost of a step, counted without taking it, is that of the step taken."""

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from reference.tiny import tiny_config
from reference.vits import DPT
from torch.utils.flop_counter import FlopCounterMode

from trainers.config import TrainConfig
from trainers.cost import StepProfile, StepProfiler, profile_step, step_cost
from trainers.css.unreliable import BINS
from trainers.errors import ConfigError
from trainers.local_run import LocalRun
from trainers.methods import METHODS
from trainers.schedules import loss_weights
from trainers.state import TrainState
from trainers.step import css_step
from trainers.targets import Batch, StepContext

cost_of = functools.cache(step_cost)
CPU = torch.device("cpu")
DEEPLAB = {
    "model.arch": "deeplabv3plus",
    "model.backbone": "resnet18",
    "model.aspp_width": 16,
    "model.head_width": 16,
    "data.image_size": 32,
}
LIGHT = {"model.arch": "light", "model.encoder": "tf_efficientnet_lite0", "model.head_width": 16}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"compute.precision": "bfloat16"},
    {"schedule.accumulate": 2},
    {"loss.lambda_u": 0.0, "loss.lambda_c": 0.0},
    {"loss.supervised": "ohem", "ema.prototype_source": "student", "model.norm": "group"},
    {"css.label_strategy": "cross", "augment.strong.mix": "classmix"},
    {**DEEPLAB, "model.stem": "deep", "model.output_stride": 8},
    {"augment.weak.crop": (33, 37), "schedule.accumulate": 2},
    {**DEEPLAB, "augment.weak.crop": (33, 37)},
    {**LIGHT},
    {**LIGHT, "model.freeze": "all", "optimizer.kind": "adamw"},
    {**DPT},
    {**METHODS["unimatch"]},
    {**DPT, **METHODS["unimatch_v2"]},
    {**METHODS["pixcon"]},
    {**METHODS["u2pl"]},
    {**METHODS["prcl"]},
    {**METHODS["cps_cutmix"]},
    {"loss.lambda_w": 1.0, "css.veto": True},
    {**METHODS["adversarial"], "adversary.discriminator_width": 8},
    {**DEEPLAB, **METHODS["cps"], "optimizer.encoder_lr_factor": 0.1},
    {**DEEPLAB, "model.auxiliary": "inner", "loss.auxiliary_targets": "all"},
    {**DPT, "model.checkpointing": True, "model.drop_path": 0.3, "compute.precision": "bfloat16"},
]


def describe(overrides: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in overrides.values())


def batch_of(config: TrainConfig) -> Batch:
    size, draws = config.augment.weak.crop or config.data.image_shape, torch.Generator().manual_seed(0)

    def images() -> torch.Tensor:
        return torch.rand(4, 3, *size, generator=draws).contiguous(memory_format=torch.channels_last)

    labels = torch.randint(0, config.num_classes, (4, *size), generator=draws)
    if not config.uses_unlabelled:
        return Batch(images(), labels, None)
    batch = Batch(images(), labels, images(), torch.ones(4, *size, dtype=torch.bool))
    groups = torch.tensor(config.class_groups)
    return batch._replace(weak=groups[labels], class_groups=groups) if config.uses_weak else batch


def take_step(state: TrainState, batch: Batch) -> None:
    """As the loop does."""
    weights = loss_weights(state.config, state.step)
    context = StepContext(0, state.step)
    for part in css_step(
        state.wrapped, state.teacher, state.prototypes, batch, state.config, context, None, state.judging
    ):
        state.accumulate(part.weighted(weights))
    state.advance(part.prototypes)


def really(config: TrainConfig) -> StepProfile:
    """Profile of the second step of a real training."""
    state, batch = TrainState(config, LocalRun(device=CPU)), batch_of(config)
    take_step(state, batch)
    networks = state.student, state.teacher, state.optimizer
    return profile_step(*networks, state.prototypes, batch, config, state.adversary)


@pytest.mark.parametrize("overrides", VARIANTS, ids=describe)
def test_the_memory_of_a_step_counted_on_fakes_is_that_of_a_real_step(overrides: dict[str, Any]) -> None:
    config = tiny_config(overrides)
    # The same operations on the same shapes; a kernel may lay out or keep a little more than its stand-in says.
    assert cost_of(config).memory.peak == pytest.approx(really(config).peak, rel=0.01)


@pytest.mark.parametrize("overrides", VARIANTS[1:3], ids=describe)
def test_the_operations_of_a_step_counted_on_fakes_are_those_of_a_real_step(overrides: dict[str, Any]) -> None:
    config = tiny_config(overrides)
    state, batch = TrainState(config, LocalRun(device=CPU)), batch_of(config)
    with FlopCounterMode(display=False) as counter:
        take_step(state, batch)
    assert cost_of(config).flops.total == counter.get_total_flops()


def test_each_of_several_ranks_offers_pixels_to_a_bank() -> None:
    supervised = METHODS["supervised"]
    config = tiny_config({**supervised, "bank.weight": 0.1, "bank.anchors": 5})
    without, offered = (step_cost(each, 2).traffic.prototypes for each in (tiny_config(supervised), config))
    assert (without, offered) == (0, 4 * 2 * 11 * 5 * (16 + 1))


def test_each_of_several_ranks_sends_a_histogram_and_offers_unreliable_pixels() -> None:
    plain = {**METHODS["u2pl"], "thresholds.kind": "fixed", "loss.contrast": "hard"}
    without, offered = (step_cost(tiny_config(each), 2).traffic.prototypes for each in (plain, METHODS["u2pl"]))
    assert offered - without == 4 * (2 * 11 * 128 * (16 + 1) + BINS)


def test_each_stream_is_a_forward_of_the_students_and_none_of_the_teachers() -> None:
    one, two, three = (cost_of(tiny_config(METHODS[name])).flops for name in ("fixmatch", "unimatch_v2", "unimatch"))
    assert one.teacher == two.teacher == three.teacher
    # Of four images each: labelled and one, two or three views.
    assert [flops.student / one.teacher for flops in (one, two, three)] == [2, 3, 4]


def test_an_auxiliary_head_costs_the_student_alone() -> None:
    without, with_one = (step_cost(tiny_config({"model.auxiliary": name}), 2) for name in ("none", "inner"))
    # A 3x3 convolution of 24 channels to 16 with BatchNorm, and a 1x1 one to 11 classes with a bias.
    weights, cells = 24 * 16 * 9 + 16 * 11, 4 * 8 * 8  # of four images
    assert with_one.parameters.total - without.parameters.total == weights + 2 * 16 + 11
    assert with_one.traffic.gradients - without.traffic.gradients == 4 * (weights + 2 * 16 + 11)
    assert with_one.flops.teacher == without.flops.teacher
    assert with_one.flops.student - without.flops.student == 2 * weights * cells
    assert with_one.memory.weights - without.memory.weights == 4 * (weights + 2 * 16 + 11 + 2 * 16) + 8  # a counter


def test_a_discriminator_costs_two_forwards_of_maps_one_of_labels_and_its_gradients() -> None:
    method = {**METHODS["adversarial"], "adversary.discriminator_width": 8}
    fixed = {"css.unsupervised_gate": "logit", "adversary.weight_labelled": 0, "adversary.weight_unlabelled": 0}
    without, with_one = (step_cost(tiny_config(each), 2) for each in (method | fixed, method))
    numbers = sum(
        16 * inputs * outputs + outputs for inputs, outputs in ((11, 8), (8, 16), (16, 32), (32, 64), (64, 1))
    )
    assert with_one.traffic.gradients - without.traffic.gradients == 4 * numbers
    assert with_one.memory.weights - without.memory.weights == 4 * numbers
    assert with_one.flops.student == without.flops.student
    # An image of 32 pixels a side: a product a weight and a cell.
    layers = ((11, 8, 256), (8, 16, 64), (16, 32, 16), (32, 64, 4), (64, 1, 1))
    image = sum(2 * 16 * inputs * outputs * cells for inputs, outputs, cells in layers)
    # Two labelled and two unlabelled maps for either, two of labels, two of the teacher's.
    assert with_one.flops.rest - without.flops.rest == image * (4 + 4 + 2 + 2)


def test_two_students_and_their_teachers_cost_what_two_trainings_do() -> None:
    alone = {**METHODS["cps_cutmix"], "model.students": 1}
    one, two = (step_cost(tiny_config(each), 2) for each in (alone, METHODS["cps_cutmix"]))
    assert [number * 2 for number in (*one.parameters, *one.flops)] == [*two.parameters, *two.flops]
    assert [2 * one.memory.weights, 2 * one.memory.optimizer] == [two.memory.weights, two.memory.optimizer]
    assert 2 * one.traffic.gradients == two.traffic.gradients
    assert two.memory.activations <= 1.01 * one.memory.activations  # the first one's are freed before the second's


def test_attention_counts_its_matrix_products() -> None:
    # Two of them forward. Backward a gradient for each of their four factors, and the scores are computed again.
    shape, profiler = (2, 3, 7, 8), StepProfiler()
    queries, keys, values = (torch.rand(shape, requires_grad=True) for _ in range(3))
    with profiler, profiler.phase("forward"):
        out = torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
        with profiler.phase("backward"):
            out.sum().backward()
    product = 2 * 2 * 3 * 7 * 7 * 8
    assert profiler.flops == {"forward": 2 * product, "backward": 5 * product}


def test_checkpointing_of_a_vit_keeps_less_for_another_forward_of_its_blocks() -> None:
    larger = DPT | {"augment.weak.crop": (70, 70)}
    kept, again = (cost_of(tiny_config(larger | {"model.checkpointing": value})) for value in (False, True))
    assert again.memory.activations < 0.7 * kept.memory.activations
    assert again.flops.student == kept.flops.student
    # 8 images of 26 tokens through 4 blocks: 12 C^2 weights a token, and two products of attention.
    blocks = 4 * 8 * (2 * 26 * 12 * 32**2 + 2 * 2 * 26 * 26 * 32)
    assert again.flops.backward - kept.flops.backward == blocks


@pytest.mark.parametrize("groups", [1, 16])
def test_the_backward_of_a_convolution_counts_its_forward_for_each_gradient(groups: int) -> None:
    # torch's own counter takes a depthwise convolution's weight gradient for a dense one's.
    convolution = torch.nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False)
    profiler = StepProfiler()
    with profiler:
        maps = convolution(torch.rand(2, 16, 8, 8, requires_grad=True))
        with profiler.phase("backward"):
            maps.sum().backward()
    assert profiler.flops == {"rest": 2 * 2 * 8 * 8 * 16 * 9 * 16 // groups, "backward": 2 * profiler.flops["rest"]}


def profiled_peak(state: TrainState, batch: Batch) -> int:
    """Bytes that torch's own allocator had handed out at most during a step, with what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        take_step(state, batch)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    networks = (state.student, state.teacher)
    before = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    before += [*state.prototypes, *(part for part in batch if part is not None)]
    before += [entry["momentum_buffer"] for entry in state.optimizer.state.values()]
    return peak + sum(tensor.untyped_storage().nbytes() for tensor in before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_memory_of_a_step_is_what_the_allocator_hands_out(precision: str) -> None:
    # Large enough for the maps to outweigh the parameters; the peak then lies where the backward begins.
    config = tiny_config({"model.width": 32, "data.image_size": 96, "compute.precision": precision})
    state, batch = TrainState(config, LocalRun(device=CPU)), batch_of(config)
    take_step(state, batch)
    memory = cost_of(config).memory
    assert memory.activations > memory.weights
    # Autograd adds up gradients in place when no mode is active, and kernels use a little memory that is not counted.
    assert memory.peak == pytest.approx(profiled_peak(state, batch), rel=0.05)


@pytest.mark.parametrize(("kind", "moments"), [("sgd", 1), ("adamw", 2)])
def test_weights_and_moments_are_counted_by_their_sizes(kind: str, moments: int) -> None:
    config = tiny_config({"schedule.labelled_batch": 16, "schedule.unlabelled_batch": 16, "optimizer.kind": kind})
    state = TrainState(config, LocalRun(device=CPU))
    parameters = sum(parameter.numel() for parameter in state.student.parameters())
    buffers = sum(buffer.untyped_storage().nbytes() for buffer in state.student.buffers())
    cost = cost_of(config)
    assert cost.parameters.total == parameters
    assert cost.parameters.encoder == sum(parameter.numel() for parameter in state.student.encoder.parameters())
    assert cost.memory.weights == 2 * (4 * parameters + buffers)
    counters = len(list(state.student.parameters())) if kind == "adamw" else 0
    assert cost.memory.optimizer == 4 * (moments * parameters + counters)


def test_several_ranks_keep_their_gradients_and_share_the_images() -> None:
    config = tiny_config({"schedule.labelled_batch": 16, "schedule.unlabelled_batch": 16})
    alone, shared = cost_of(config), cost_of(config, 2)
    assert shared.memory.optimizer == alone.memory.optimizer + 4 * alone.parameters.total
    assert shared.flops.student == alone.flops.student // 2


def test_parts_of_a_batch_need_less_memory_for_the_same_operations_of_the_networks() -> None:
    whole, parts = (cost_of(tiny_config({"model.width": 32, "schedule.accumulate": count})) for count in (1, 2))
    assert parts.memory.activations == pytest.approx(whole.memory.activations / 2, rel=0.01)  # statistics of norms
    assert parts.flops[:2] == whole.flops[:2]


def test_bfloat16_halves_what_the_student_keeps() -> None:
    # A map of logits and the first images stay as they are.
    config = tiny_config({"schedule.labelled_batch": 16, "schedule.unlabelled_batch": 16})
    reduced = config.model_copy(update={"compute": config.compute.model_copy(update={"precision": "bfloat16"})})
    assert 0.45 < cost_of(reduced).memory.activations / cost_of(config).memory.activations < 0.6


def test_a_convolutions_operations_are_two_for_each_product() -> None:
    profiler = StepProfiler()
    with profiler, profiler.phase("here"):
        torch.nn.functional.conv2d(torch.ones(2, 3, 8, 8), torch.ones(5, 3, 3, 3), padding=1)
    assert profiler.flops == {"here": 2 * 2 * 5 * 8 * 8 * 3 * 3 * 3}


def test_memory_is_counted_until_nothing_refers_to_it() -> None:
    profiler = StepProfiler()
    with profiler:
        first = torch.ones(256)
        view = first[1:]
        del first
        other = torch.ones(128)
        assert profiler.alive["rest"] == 4 * (256 + 128)
        del view
        assert profiler.alive["rest"] == 4 * 128
        del other
        assert profiler.alive["rest"] == 0
        torch.ones(64)
    assert profiler.at_peak == {"rest": 4 * (256 + 128)}


def test_what_crosses_the_network_is_counted_in_float32() -> None:
    config = tiny_config()
    traffic = cost_of(config).traffic
    # K = 11, D = 16; five norms of the encoder, two of the heads; mean and standard deviation of images.
    channels = 8 + 16 + 24 + 24 + 24 + 16 + 16
    assert traffic.prototypes == 4 * 11 * (16 + 1)
    assert traffic.statistics == 4 * (2 * channels + 6)
    assert traffic.gradients == 4 * cost_of(config).parameters.total


def test_without_prototypes_none_cross_the_network() -> None:
    config = tiny_config({"loss.lambda_c": 0.0, "css.label_strategy": "logit"})
    assert cost_of(config).traffic.prototypes == 0


@pytest.mark.parametrize("overrides", [{"model.norm": "sync_batch"}, {"compute.compile": True}], ids=describe)
def test_what_needs_a_gpu_or_a_compiler_is_counted_without(overrides: dict[str, Any]) -> None:
    assert cost_of(tiny_config(overrides)).memory == cost_of(tiny_config()).memory


def test_workers_that_cannot_share_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule.labelled_batch .* got 4 for 3"):
        cost_of(tiny_config(), 3)


def test_counting_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    step_cost(tiny_config())
    assert torch.equal(torch.random.get_rng_state(), before)
