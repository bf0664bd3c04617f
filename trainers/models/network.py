"""Base of all networks: an encoder, which may be frozen, and a decoder that may be kept from seeing all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.config import ModelConfig
from trainers.errors import ConfigError
from trainers.models.heads import Dense


class Network(nn.Module):
    """An encoder, and a decoder with heads that maps its features to `Dense`."""

    feature_channels: tuple[int, ...]
    """Of the maps between encoder and decoder."""
    frozen: Literal["none", "norm", "all"] = "none"
    """`ModelConfig.freeze`."""

    def forward(self, images: Tensor, keep: Sequence[Tensor] | None = None) -> Dense:
        """Map images [N, 3, H, W] in [0, 1] to maps of height H / 4 and width W / 4 (rounded up).

        Args:
            images: of any size, unless the network says otherwise.
            keep: for each map between encoder and decoder, what its channels are multiplied by, [N, C]; none: nothing.
        """
        maps = self.encode(images)
        if keep is not None:
            maps = [each * kept[:, :, None, None].to(each.dtype) for each, kept in zip(maps, keep, strict=True)]
        return self.decode(maps, images)

    def encode(self, images: Tensor) -> Sequence[Tensor]:
        """Map images [N, 3, H, W] in [0, 1] to maps [N, C, h, w], C being `feature_channels`."""
        raise NotImplementedError

    def decode(self, maps: Sequence[Tensor], images: Tensor) -> Dense:
        """Map the encoder's maps of these images, of which only the size is read, to `Dense`."""
        raise NotImplementedError

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the parts of the encoder by the names that published weights have, or the whole under an empty one."""
        raise NotImplementedError

    def encoder_layers(self) -> list[list[nn.Parameter]]:
        """Return the encoder's parameters by layers that may have learning rates of their own, from the image on."""
        return [[parameter for part in self.encoder_parts().values() for parameter in part.parameters()]]

    def by_own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return an encoder's tensors by the names that they have here, where published weights may have others."""
        return dict(tensors)

    def freeze_encoder(self, config: ModelConfig) -> None:
        """Keep what `model.freeze` says as it is, in training, too.

        Raises:
            ConfigError: BatchNorm's statistics are to be kept, and the encoder has none.
        """
        self.frozen = config.freeze
        if config.freeze == "norm" and not self._kept():
            raise ConfigError(
                "model.freeze=norm must have an encoder with BatchNorm, got "
                f"{config.encoder_name or config.arch} with norm={config.norm}: use none or all"
            )
        if config.freeze == "all":
            for part in self.encoder_parts().values():
                part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._kept():
            module.eval()
        return self

    def _kept(self) -> list[nn.Module]:
        if self.frozen == "none":
            return []
        parts = list(self.encoder_parts().values())
        if self.frozen == "all":
            return parts
        return [module for part in parts for module in part.modules() if isinstance(module, _BatchNorm)]
