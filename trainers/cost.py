"""Cost of a training step, counted without taking it: parameters, floating-point operations, memory.

The real step runs on fake tensors, which have shapes and no values: nothing is allocated or computed, so a ResNet-101
at 512 pixels is counted on a laptop. Fake tensors are those of the CPU, because a build without CUDA can neither draw
random numbers nor cast for it; sizes and types of tensors are the same there.

Counted as memory: every tensor that is alive, and so all that autograd saves for the backward pass. Not counted:
workspaces of convolutions, fragmentation of the allocator, the CUDA context, evaluation; `ALLOWANCE` is added for them.
"""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

from trainers.adversary import Adversary, make_discriminator
from trainers.class_weights import with_even_weights
from trainers.config import TrainConfig
from trainers.css.bank import empty_bank
from trainers.css.prototypes import Prototypes
from trainers.css.unreliable import BINS
from trainers.data.batches import check_batches
from trainers.distributed import moving_buffers
from trainers.models.build import make_network
from trainers.models.network import Network
from trainers.models.pair import each
from trainers.schedules import loss_weights
from trainers.state import make_optimizer, make_teacher, update_teacher
from trainers.step import css_step
from trainers.targets import Batch, StepContext

ALLOWANCE = 0.2
"""An assumption, not a measurement: what is not counted, as a share of what is."""

ADAM = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter."""

FLOAT_BYTES = 4
"""Gradients, prototypes and statistics cross the network as float32."""


def _backward_of_convolution(gradient: Tensor, images: Tensor, weight: Tensor, *options: Any, **_: Any) -> int:
    """Count each gradient that is asked for as the forward; torch's own formula ignores groups in the weight's."""
    _bias, _stride, _padding, _dilation, transposed, _of_output, _groups, mask = options
    forward: int = conv_flop_count(list(images.shape), list(weight.shape), list(gradient.shape), transposed)
    return forward * (int(mask[0]) + int(mask[1]))


aten = torch.ops.aten
FORMULAS = {
    **flop_registry,
    aten.convolution_backward: _backward_of_convolution,
    # The CPU's attention, which torch's own counter leaves out, costs what that of a GPU does.
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
"""Operations of an operator by its arguments and, as `out_val`, its output."""


class Parameters(NamedTuple):
    """Numbers of the student."""

    encoder: int
    """Of the encoder, learned or frozen; of a published network, without its classifier."""
    heads: int
    """All others: the two heads and what lies between, as the spatial pyramid of deeplabv3plus."""

    @property
    def total(self) -> int:
        """Of the student; the teacher has as many again, which are not learned."""
        return self.encoder + self.heads


class Flops(NamedTuple):
    """Operations of convolutions and matrix products, a multiplication and an addition being two; nothing else."""

    teacher: int
    """Forward."""
    student: int
    """Forward."""
    backward: int
    rest: int
    """Pseudo-labels, prototypes and the forward of the losses."""

    @property
    def total(self) -> int:
        """Of a rank's step."""
        return sum(self)


class Memory(NamedTuple):
    """Bytes that are alive when most are, by the part of the step that allocated them."""

    weights: int
    """Student, teacher and discriminator, with their statistics."""
    optimizer: int
    """Momentum; and gradients where ranks keep them in buckets all the time."""
    activations: int
    """Of the student's forward, kept for its backward."""
    backward: int
    """Gradients so far, and what the backward pass is working on."""
    rest: int
    """Batch, prototypes, pseudo-labels, the maps and graphs of the losses, and what the optimizer is working on."""

    @property
    def peak(self) -> int:
        """All of it."""
        return sum(self)

    @property
    def needed(self) -> int:
        """With `ALLOWANCE` for what is not counted."""
        return round(self.peak * (1 + ALLOWANCE))


class Traffic(NamedTuple):
    """Bytes that each of several ranks contributes to the collectives of a step; one rank sends none."""

    gradients: int
    prototypes: int
    """K x (D + 1) sums and counts, of Gaussians K x 2 D; of a bank or queues, what each rank offers to it; a histogram
    of entropies."""
    statistics: int
    """BatchNorm's, which are averaged over the ranks."""


class StepCost(NamedTuple):
    """Cost of one optimizer step to one rank."""

    parameters: Parameters
    flops: Flops
    memory: Memory
    traffic: Traffic


class StepProfile(NamedTuple):
    """Operations and memory of a step, by part of the step."""

    flops: Mapping[str, int]
    bytes_at_peak: Mapping[str, int]

    @property
    def peak(self) -> int:
        """Bytes alive when most were."""
        return sum(self.bytes_at_peak.values())


def step_cost(config: TrainConfig, workers: int = 1) -> StepCost:
    """Return what one optimizer step costs each of `workers` ranks; nothing is allocated, computed or downloaded.

    A rank draws all anchors of the contrastive loss here, of which several ranks draw a part each.

    Raises:
        ConfigError: the workers cannot share the batches.
    """
    check_batches(config, workers)
    config = _on_a_cpu(config)
    with torch.device("meta"):
        student = make_network(config.model, config.num_classes, torch.device("meta"))
        discriminator = make_discriminator(config)
    student.to(memory_format=torch.channels_last)
    teacher = make_teacher(student)
    with FakeTensorMode():
        _replace_by_fakes(student)
        _replace_by_fakes(teacher)
        optimizer = _warm_optimizer(student, config)
        adversary = None
        if discriminator is not None:
            _replace_by_fakes(discriminator)
            adversary = Adversary(config, discriminator)
            _warm(adversary.optimizer, ADAM)
        if workers > 1:  # DistributedDataParallel keeps its buckets from step to step, and gradients are views of them
            for parameter in (*_learned(student), *_parameters_of(adversary)):
                parameter.grad = torch.zeros_like(parameter)
        prototypes = Prototypes.empty(config.num_classes, config.model.representation_dim)
        profile = profile_step(student, teacher, optimizer, prototypes, _batch(config, workers), config, adversary)
    alive = profile.bytes_at_peak
    named = {name: alive.get(name, 0) for name in ("weights", "optimizer", "backward")}
    activations = alive.get("student", 0)
    rest = profile.peak - activations - sum(named.values())
    flops = {name: profile.flops.get(name, 0) for name in ("teacher", "student", "backward")}
    return StepCost(
        _parameters(student),
        Flops(**flops, rest=sum(profile.flops.values()) - sum(flops.values())),
        Memory(**named, activations=activations, rest=rest),
        _traffic(student, config, workers, adversary),
    )


def profile_step(
    student: nn.Module,
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    prototypes: Prototypes,
    batch: Batch,
    config: TrainConfig,
    adversary: Adversary | None = None,
) -> StepProfile:
    """Take one step of the training loop, as one rank, and count its operations and its memory.

    Tensors may be fake. The optimizers should have taken a step before, so that their momenta are there.
    """
    profiler, of_adversary = StepProfiler(), _parameters_of(adversary)
    profiler.add("weights", [tensor for net in (student, teacher) for tensor in (*net.parameters(), *net.buffers())])
    profiler.add("weights", of_adversary)
    gradients = [parameter.grad for parameter in (*student.parameters(), *of_adversary)]
    optimizers = [optimizer] if adversary is None else [optimizer, adversary.optimizer]
    profiler.add("optimizer", tree_leaves([[list(each.state.values()) for each in optimizers], gradients]))
    profiler.add("batch", [*prototypes, *batch])
    config, context = with_even_weights(config), StepContext(config.seed, 1)
    bank = empty_bank(config, batch.images.device)
    profiler.add("bank", bank or ())
    weights = loss_weights(config, 1)
    with profiler:
        for part in css_step(
            each(student, lambda network: ProfiledNetwork(network, profiler, "student")),
            each(teacher, lambda network: ProfiledNetwork(network, profiler, "teacher")),
            prototypes,
            batch,
            config,
            context,
            bank,
            None if adversary is None else adversary.network,
        ):
            loss = part.weighted(weights)
            with profiler.phase("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
        with profiler.phase("update"):
            optimizer.step()
            if adversary is not None:
                adversary.optimizer.step()
            update_teacher(teacher, student, config.ema.teacher_momentum)
    return StepProfile(profiler.flops, profiler.at_peak)


class StepProfiler(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the operations of convolutions and matrix products, and of the bytes of tensors alive.

    A tensor counts by its storage, from the operation that returned it until nothing refers to it. What an operation
    allocates and frees within itself is not counted. Under this mode autograd adds gradients into new memory instead of
    in place, so that a peak in the backward of the losses comes out too large, by less than a map of logits.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[str] = Counter()
        self.alive: Counter[str] = Counter()
        self.at_peak: Counter[str] = Counter()
        self._now = "rest"
        self._peak = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens meanwhile under this name."""
        before, self._now = self._now, name
        try:
            yield
        finally:
            self._now = before

    def add(self, name: str, tensors: Iterable[object]) -> None:
        """Count tensors that exist already."""
        with self.phase(name):
            for tensor in tensors:
                if isinstance(tensor, Tensor):
                    self._count(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops[self._now] += formula(*args, **kwargs, out_val=out)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size, name = storage._cdata, storage.nbytes(), self._now
        if key in self._storages:
            return
        self._storages[key] = weakref.ref(storage, functools.partial(self._discount, key, size, name))
        self.alive[name] += size
        if self.alive.total() > self._peak:
            self._peak, self.at_peak = self.alive.total(), self.alive.copy()

    def _discount(self, key: int, size: int, name: str, _: object) -> None:
        del self._storages[key]
        self.alive[name] -= size


class ProfiledNetwork(nn.Module):
    """A network whose forward counts as a phase of its own."""

    def __init__(self, network: nn.Module, profiler: StepProfiler, phase: str) -> None:
        super().__init__()
        self.network = network
        self.profiler = profiler
        self.name = phase

    @property
    def feature_channels(self) -> Any:
        """The network's."""
        return self.network.feature_channels

    def forward(self, *inputs: Any) -> Any:
        """Run the network."""
        with self.profiler.phase(self.name):
            return self.network(*inputs)


def _on_a_cpu(config: TrainConfig) -> TrainConfig:
    """Return the config without what a step on fake tensors of the CPU cannot have; it is of the same size.

    Normalisation over ranks refuses to run there, and fake tensors are not compiled: what a compiler fuses is counted
    as if it were not.
    """
    model, compute = config.model, config.compute
    if model.norm == "sync_batch":
        model = model.model_copy(update={"norm": "batch"})
    return config.model_copy(update={"model": model, "compute": compute.model_copy(update={"compile": False})})


def _replace_by_fakes(network: nn.Module) -> None:
    """Replace a network's meta tensors by fake ones of the CPU, to which `Module.to` refuses to move."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(_fake(parameter), requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, _fake(buffer))


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def _warm_optimizer(student: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of `TrainState` as it is after its first step."""
    optimizer = make_optimizer(student, config.optimizer)
    of_sgd = ("momentum_buffer",) if config.optimizer.momentum > 0 else ()
    _warm(optimizer, ADAM if config.optimizer.kind == "adamw" else of_sgd)
    return optimizer


def _warm(optimizer: torch.optim.Optimizer, kept: Sequence[str]) -> None:
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        for name in kept:
            optimizer.state[parameter][name] = _fake(parameter)
        if kept == ADAM:
            optimizer.state[parameter]["step"] = torch.zeros(())


def _parameters_of(adversary: Adversary | None) -> list[nn.Parameter]:
    return [] if adversary is None else list(adversary.network.parameters())


def _batch(config: TrainConfig, workers: int) -> Batch:
    """Return a rank's batch, as the loader hands it out."""
    shape = config.augment.weak.crop or config.data.image_shape
    assert shape is not None  # noqa: S101 - check_batches has refused images of different sizes
    height, width = shape

    def images(batch: int) -> Tensor:
        return torch.empty(batch // workers, 3, height, width).contiguous(memory_format=torch.channels_last)

    labelled = images(config.schedule.labelled_batch)
    labels = torch.empty(labelled.shape[0], height, width, dtype=torch.int64)
    if not config.uses_unlabelled:
        return Batch(labelled, labels, None)
    unlabelled = images(config.schedule.unlabelled_batch)
    inside = torch.empty(unlabelled.shape[0], height, width, dtype=torch.bool)
    if not config.uses_weak:
        return Batch(labelled, labels, unlabelled, inside)
    weak, groups = torch.empty_like(inside, dtype=torch.int64), torch.empty(config.num_classes, dtype=torch.int64)
    return Batch(labelled, labels, unlabelled, inside, weak, groups)


def _parameters(network: Network) -> Parameters:
    total = sum(parameter.numel() for parameter in network.parameters())
    parts = network.encoder_parts().values()
    encoder = sum(parameter.numel() for part in parts for parameter in part.parameters())
    return Parameters(encoder, total - encoder)


def _learned(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _traffic(network: nn.Module, config: TrainConfig, workers: int, adversary: Adversary | None) -> Traffic:
    gradients = sum(parameter.numel() for parameter in (*_learned(network), *_parameters_of(adversary)))
    of_pixel = config.model.representation_dim + 1
    prototypes = config.num_classes * config.model.summed if config.uses_prototypes else 0
    if config.ring_size:
        offered = config.unreliable.entries if config.uses_unreliable else config.bank.anchors
        prototypes += workers * config.num_classes * offered * of_pixel
    if config.ranks_entropy:
        prototypes += BINS
    statistics = sum(buffer.numel() for buffer in moving_buffers(network))
    return Traffic(FLOAT_BYTES * gradients, FLOAT_BYTES * prototypes, FLOAT_BYTES * statistics)
