"""Two networks of one architecture and unlike initialisation, each of which may label for the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from trainers.models.heads import Dense
from trainers.models.network import Network

_FIRST = "first."


class Pair(Network):
    """Two networks that are trained together. Called as one it is the first, which is scored and labels in a report."""

    first: Any
    """A network, or what a step calls in its place."""
    second: Any

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    @property
    def feature_channels(self) -> tuple[int, ...]:  # type: ignore[override]
        """Of either."""
        channels: tuple[int, ...] = self.first.feature_channels
        return channels

    def forward(self, images: Tensor, keep: Sequence[Tensor] | None = None) -> Dense:
        """Return what the first makes of them."""
        dense: Dense = self.first(images, keep)
        return dense

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the parts of both encoders, by the names that they have here."""
        return {
            f"{member}.{name}": part
            for member in ("first", "second")
            for name, part in getattr(self, member).encoder_parts().items()
        }

    def encoder_layers(self) -> list[list[nn.Parameter]]:
        """Return the layers of both encoders, those of one depth together."""
        return [[*one, *other] for one, other in zip(*(each.encoder_layers() for each in members(self)), strict=True)]


def members(network: nn.Module) -> tuple[Any, ...]:
    """Return the networks of a pair, or the one network."""
    return (network.first, network.second) if isinstance(network, Pair) else (network,)


def each(network: nn.Module, change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return the pair of what is made of the networks of a pair, or what is made of the one network."""
    changed = [change(member) for member in members(network)]
    return Pair(*changed) if isinstance(network, Pair) else changed[0]


def of_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the first network's share of a pair's state dict."""
    return {name.removeprefix(_FIRST): tensor for name, tensor in tensors.items() if name.startswith(_FIRST)}
