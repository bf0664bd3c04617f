"""Base of all networks: an encoder, which may be frozen, and a decoder that may be kept from seeing all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.config import ModelConfig
from trainers.errors import ConfigError
from trainers.models.heads import Dense, Features, Norm, conv, first_cells


class Network(nn.Module):
    """An encoder, and a decoder with heads that maps its features to `Dense`."""

    feature_channels: tuple[int, ...]
    """Of the maps between encoder and decoder."""
    inner_channels: int
    """Of the map for an auxiliary head; 0: the encoder has none."""
    frozen: Literal["none", "norm", "all"] = "none"
    """`ModelConfig.freeze`."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary: nn.Module | None = None
        """Segmentation head on `Features.inner`, of a student in training."""

    def forward(self, images: Tensor, keep: Sequence[Tensor] | None = None) -> Dense:
        """Map images [N, 3, H, W] in [0, 1] to maps of height H / 4 and width W / 4 (rounded up).

        Args:
            images: of any size, unless the network says otherwise.
            keep: for each map between encoder and decoder, what its channels are multiplied by, [N, C]; none: nothing.
        """
        maps, inner = self.encode(images)
        auxiliary = None
        if self.training and self.auxiliary is not None:
            logits: Tensor = self.auxiliary(inner).float()
            logits = F.interpolate(logits, size=maps[0].shape[-2:], mode="bilinear", align_corners=True)
            auxiliary = first_cells(logits, images)
        del inner  # or it would live as long as what the decoder makes
        if keep is not None:
            maps = [each * kept[:, :, None, None].to(each.dtype) for each, kept in zip(maps, keep, strict=True)]
        return self.decode(maps, images)._replace(auxiliary=auxiliary)

    def encode(self, images: Tensor) -> Features:
        """Map images [N, 3, H, W] in [0, 1] to maps [N, C, h, w], C being `feature_channels`, and `inner_channels`."""
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

    def add_auxiliary(self, config: ModelConfig, num_classes: int, norm: Norm) -> None:
        """Add the auxiliary head that `model.auxiliary` asks for, after everything else has its random parameters.

        Raises:
            ConfigError: the encoder has no stage between its finest and its deepest map.
        """
        if config.auxiliary == "none":
            return
        if self.inner_channels == 0:
            raise ConfigError(
                f"model.auxiliary={config.auxiliary} must have an encoder with a stage between its finest and its "
                f"deepest map, got {config.encoder_name}: choose another, or set model.auxiliary=none"
            )
        width = 2 * config.width if config.arch == "tiny" else config.head_width
        self.auxiliary = nn.Sequential(conv(self.inner_channels, width, norm), nn.Conv2d(width, num_classes, 1))

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
