"""Encoders of timm: convolutional networks and hierarchical transformers, as maps of features from stride 4 on."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import DropPath, Format, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from trainers.colour import names_of
from trainers.config import ModelConfig
from trainers.config.model import PLAIN_VIT
from trainers.errors import ConfigError, first_line
from trainers.models.heads import FINEST, Features, Norm, Normalise


class TimmEncoder(nn.Module):
    """A network of timm without its classifier, with the normalisation of images that its weights were made with.

    Images are padded below and on the right with their mean colour (that of the normalisation) to multiples of the
    deepest stride, so that maps of all strides cover the same area, whatever the network does at a border.
    """

    def __init__(self, config: ModelConfig, norm: Norm) -> None:
        """Make the network with random weights.

        Raises:
            ConfigError: timm has no such network, it has no maps of features, or not at the configured stride.
        """
        super().__init__()
        features = _create(config)
        strides, channels = features.feature_info.reduction(), features.feature_info.channels()
        last = {stride: index for index, stride in enumerate(strides) if stride >= FINEST}
        if FINEST not in last or len(last) < 2 or list(last) != sorted(last):
            raise ConfigError(
                f"model.encoder must have maps of features at stride {FINEST} and at deeper ones, got {config.encoder} "
                f"with strides {', '.join(map(str, strides))}: choose a convolutional network or a hierarchical "
                "transformer"
            )
        self.levels = tuple(last.values())
        self.strides = tuple(last)
        """Of the maps, from 4 on."""
        self.channels = tuple(channels[index] for index in self.levels)
        """Of the maps."""
        self.inner_level = self.levels[-1] - 1
        self.inner_channels = channels[self.inner_level] if self.inner_level > self.levels[0] else 0
        """Of the stage before the deepest one, which may have its stride; 0: that is the one of stride 4."""
        self.normalise = Normalise(config.input, features.pretrained_cfg["mean"], features.pretrained_cfg["std"])
        self.features = convert_sync_batchnorm(features) if norm is nn.SyncBatchNorm else features
        self.channels_last = getattr(features, "output_fmt", Format.NCHW) == Format.NHWC

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images [N, 3, H, W] in [0, 1] to maps [N, C, H' / stride, W' / stride], H' and W' being padded."""
        return list(self.with_inner(images).maps)

    def with_inner(self, images: Tensor) -> Features:
        """Return the same maps, and that of the stage before the deepest one."""
        height, width = images.shape[-2:]
        deepest = self.strides[-1]
        padded = F.pad(self.normalise(images), (0, -width % deepest, 0, -height % deepest))
        maps = self.features(padded)
        chosen = (maps[index] for index in (*self.levels, self.inner_level))
        *seen, inner = (maps.permute(0, 3, 1, 2) if self.channels_last else maps for maps in chosen)
        return Features(seen, inner)


def known_name(config: ModelConfig) -> str:
    """Return the configured network of timm, with or without the tag of its weights.

    Raises:
        ConfigError: timm has none of this name.
    """
    name = str(config.encoder)
    bare = name.partition(".")[0]
    if not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see timm.list_models()"
        raise ConfigError(f"model.encoder must be a network of timm {timm.__version__}, got {name}: {hint}")
    return name


def _create(config: ModelConfig) -> Any:
    """Return the network of timm, with random weights, that has been tried at the smallest size of its strides."""
    name = known_name(config)
    options: dict[str, Any] = {"output_stride": config.output_stride} if config.arch == "deeplabv3plus" else {}
    channels, refusals = len(names_of(config.input.space, config.input.add)), []
    for sizes in ({}, {"strict_img_size": False}):  # what transformers with windows need to take images of any size
        try:
            features = timm.create_model(name, features_only=True, in_chans=channels, **options, **sizes)
            _try(features, channels)
        except Exception as error:  # timm and its networks raise what they like: AssertionError, TypeError, ...
            refusals.append(first_line(error))
        else:
            return _without_dropout(features)
    must = "model.encoder must be a network of timm that gives maps of features of images of any size"
    if not options:
        raise ConfigError(
            f"{must}, got {name} ({refusals[0]}): choose another, or set model.arch=dpt for a plain ViT, as {PLAIN_VIT}"
        )
    raise ConfigError(
        f"{must} at model.output_stride={config.output_stride}, got {name} ({refusals[0]}): set model.arch=light, "
        "which takes it at its own strides, or choose another"
    )


@torch.no_grad()
def _try(features: Any, channels: int) -> None:
    deepest = max(features.feature_info.reduction())
    features.eval()(torch.zeros(1, channels, deepest, 3 * deepest))
    features.train()


def _without_dropout(features: nn.Module) -> nn.Module:
    """Turn off dropout and stochastic depth, which draw from the global generator: a resumed run would differ."""
    for module in features.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
    return features
