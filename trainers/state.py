"""Training state: everything that crosses a step, in one object that is saved and restored bit by bit."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from trainers.adversary import make_adversary
from trainers.compute import in_precision, in_steps
from trainers.config import OptimizerConfig, TrainConfig
from trainers.css.bank import Bank, empty_bank
from trainers.css.prototypes import Prototypes
from trainers.distributed import average_buffers
from trainers.errors import DataError
from trainers.models.build import build_model
from trainers.models.heads import VARIANCE_HEAD
from trainers.models.pair import each, members
from trainers.optimizers import SGD, AdamW
from trainers.randomness import derive_seed
from trainers.run import Run
from trainers.schedules import learning_rate, teacher_momentum
from trainers.snapshots import Snapshot

LR_FACTOR = "lr_factor"
"""Key of a parameter group: its learning rate as a share of the schedule's."""


class TrainState:
    """Student, teacher, prototypes, optimizer and step.

    Random generators and the order of the data are pure functions of (seed, step), so they are in the state by being
    in `step` and `config_hash`.
    """

    def __init__(self, config: TrainConfig, run: Run) -> None:
        self.config = config
        self.world_size = run.world_size
        self.step = 0
        self.student = build_model(config.model, config.num_classes, derive_seed(config.seed, "model"), run.device)
        self.teacher = make_teacher(self.student).train(config.ema.teacher_norm == "train")
        self.prototypes = Prototypes.empty(config.num_classes, config.model.representation_dim, run.device)
        self.bank = empty_bank(config, run.device)
        self.adversary = make_adversary(config, run)
        self.prototypes_at_report = self.prototypes
        """As they were at the last report, from which drift is measured."""
        self.snapshots: list[Snapshot] = []
        """Representations at earlier reports; for pictures alone."""
        self.wrapped: nn.Module = each(self.student, lambda network: run.wrap(in_steps(network, config)))
        """The student as steps call it, with gradients averaged over ranks."""
        self.teaching: nn.Module = each(self.teacher, lambda network: in_steps(network, config))
        """The teacher as steps call it."""

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Made when it is first used: in vain for a state that is only looked at."""
        return make_optimizer(self.student, self.config.optimizer)

    @property
    def judging(self) -> nn.Module | None:
        """The discriminator as steps call it."""
        return None if self.adversary is None else self.adversary.wrapped

    @property
    def scored(self) -> nn.Module:
        """The network that is scored."""
        return self.teacher if self.config.evaluation.network == "teacher" else self.student

    def accumulate(self, loss: Tensor) -> None:
        """Add the gradients of this loss to those of the step."""
        with in_precision(self.config, loss.device):
            loss.backward()  # type: ignore[no-untyped-call]

    def advance(self, prototypes: Prototypes, bank: Bank | None = None) -> None:
        """Take one optimizer step down the gradients, move the teacher, take over the prototypes and the bank."""
        steps = self.config.schedule.steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optimizer, self.step, steps) * group.get(LR_FACTOR, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.adversary is not None:
            self.adversary.advance(self.step)
        average_buffers(self.student, self.world_size)
        own_buffers = self.config.ema.teacher_norm == "train"
        if own_buffers:
            average_buffers(self.teacher, self.world_size)
        update_teacher(self.teacher, self.student, teacher_momentum(self.config.ema, self.step), own_buffers)
        self.prototypes, self.bank = prototypes, bank
        self.step += 1

    def mark_report(self) -> None:
        """Measure drift from here on; call it after a report, which saves the state as its metrics saw it."""
        self.prototypes_at_report = self.prototypes

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as tensors, numbers and strings."""
        bank = {} if self.bank is None else {"bank": self.bank._asdict()}
        adversary = {} if self.adversary is None else {"adversary": self.adversary.state_dict()}
        return {
            "step": self.step,
            "config_hash": self.config.hash,
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "prototypes": self.prototypes._asdict(),
            "prototypes_at_report": self.prototypes_at_report._asdict(),
            "optimizer": self.optimizer.state_dict(),
            "snapshots": [snapshot._asdict() for snapshot in self.snapshots],
            **bank,
            **adversary,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that the same config wrote; without the optimizer's it can be looked at, not gone on with.

        Raises:
            DataError: the state belongs to another config.
        """
        written_by = state.get("config_hash", "an unknown one")
        if written_by != self.config.hash:
            raise DataError(
                f"a checkpoint must come from the same config (hash {self.config.hash}), got one of {written_by}: "
                "resume with the config that wrote it, or start afresh"
            )
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.teacher.load_state_dict(state["teacher"])
        device = self.prototypes.values.device
        self.prototypes, self.prototypes_at_report = (
            Prototypes(**{name: value.to(device) for name, value in state[key].items()})
            for key in ("prototypes", "prototypes_at_report")
        )
        if self.bank is not None:
            self.bank = Bank(**{name: value.to(device) for name, value in state["bank"].items()})
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
        self.snapshots = [Snapshot(**snapshot) for snapshot in state.get("snapshots", ())]


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the configured optimizer of all parameters that are not frozen, fused into one pass over them."""
    parameters, decay = parameter_groups(model, config), config.weight_decay
    if config.kind == "adamw":
        return AdamW(parameters, lr=config.lr, betas=(config.momentum, 0.999), weight_decay=decay, fused=True)
    nesterov = config.momentum > 0
    return SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=decay, nesterov=nesterov, fused=True)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return the parameters that are not frozen: all in one group, but those that have rates of their own.

    Those may be the encoder's layers, and the head for variances.
    """
    apart: list[tuple[float, list[nn.Parameter]]] = []
    if not config.encoder_lr_factor == config.layer_decay == 1.0:
        layers = reversed(model.encoder_layers())  # type: ignore[operator]
        apart = [(config.encoder_lr_factor * config.layer_decay**above, layer) for above, layer in enumerate(layers)]
    if config.variance_lr_factor != 1.0:
        of_variances = [parameter for name, parameter in model.named_parameters() if VARIANCE_HEAD in name]
        apart.append((config.variance_lr_factor, of_variances))
    elsewhere = {id(parameter) for _, parameters in apart for parameter in parameters}
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [p for p in learned if id(p) not in elsewhere]}]
    for factor, parameters in apart:
        slower = [parameter for parameter in parameters if parameter.requires_grad]
        if slower:
            groups.append({"params": slower, "lr": factor * config.lr, LR_FACTOR: factor})
    return groups


def make_teacher(student: nn.Module) -> nn.Module:
    """Return a copy of the student in evaluation mode, without gradients and without auxiliary head."""
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    for network in members(teacher):
        network.auxiliary = None
    return teacher


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float, own_buffers: bool = False) -> None:
    """Move the teacher: teacher <- momentum * teacher + (1 - momentum) * student.

    The rule for buffers: floating ones (BatchNorm's running statistics) are averaged like parameters, for they belong
    to the averaged weights; counters are copied. With `own_buffers` they are left to the teacher's own forwards.
    """
    parameters, buffers = dict(student.named_parameters()), dict(student.named_buffers())
    averaged: list[Tensor] = list(teacher.parameters())
    latest: list[Tensor] = [parameters[name] for name, _ in teacher.named_parameters()]
    counters: list[Tensor] = []
    counted: list[Tensor] = []
    for name, of_teacher in () if own_buffers else teacher.named_buffers():
        floating = of_teacher.is_floating_point()
        (averaged if floating else counters).append(of_teacher)
        (latest if floating else counted).append(buffers[name])
    torch._foreach_lerp_(averaged, latest, 1.0 - momentum)
    if counters:
        torch._foreach_copy_(counters, counted)
