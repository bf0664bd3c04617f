"""State of a discriminator that crosses a step: its parameters and its optimizer."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import nn

from trainers.config import TrainConfig
from trainers.models.discriminator import Discriminator
from trainers.optimizers import AdamW
from trainers.randomness import derive_seed
from trainers.run import Run

BETAS = (0.9, 0.99)
"""Of Adam, as in Hung et al."""


class Adversary:
    """A discriminator and its Adam, whose rate falls to 0 at the horizon."""

    def __init__(self, config: TrainConfig, network: Discriminator, wrapped: nn.Module | None = None) -> None:
        """Take over a network.

        Args:
            config: `adversary`, and the horizon.
            network: with its parameters.
            wrapped: the network as steps call it, with gradients averaged over ranks; none: the network itself.
        """
        self.config = config
        self.network = network
        self.wrapped = network if wrapped is None else wrapped

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Adam: AdamW that lets no weight decay."""
        parameters = self.network.parameters()
        return AdamW(parameters, lr=self.config.adversary.discriminator_lr, betas=BETAS, weight_decay=0.0, fused=True)

    def advance(self, step: int) -> None:
        """Take an optimizer step down the gradients; `step` were taken before."""
        passed = step / self.config.schedule.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.adversary.discriminator_lr * (1.0 - passed) ** self.config.optimizer.power
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as tensors and numbers."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def make_discriminator(config: TrainConfig) -> Discriminator | None:
    """Return the network that a config asks for, with random parameters from the global generator, or none."""
    width = config.adversary.discriminator_width
    return Discriminator(config.num_classes, width) if config.uses_discriminator else None


def make_adversary(config: TrainConfig, run: Run) -> Adversary | None:
    """Return the adversary of a training, initialised from its seed alone, on the rank's device; or none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "discriminator"))
        network = make_discriminator(config)
    if network is None:
        return None
    network.to(run.device).to(memory_format=torch.channels_last)
    return Adversary(config, network, run.wrap(network))
