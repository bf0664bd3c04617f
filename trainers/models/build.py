"""Networks as a config describes them, among them a small one of about 0.3 M parameters for tests and for a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.models.heads import Dense, Features, Heads, Norm, Normalise, conv, norm_layer
from trainers.models.network import Network
from trainers.models.pair import Pair, members


class TinySegmenter(Network):
    """Two strided convolutions, three dilated ones (a field of view of 67 pixels), two heads."""

    def __init__(self, config: ModelConfig, num_classes: int, norm: Norm) -> None:
        super().__init__()
        width, normalise = config.width, Normalise(config.input)
        self.feature_channels, self.inner_channels = (3 * width,), 3 * width
        self.encoder = nn.Sequential(
            normalise,
            conv(normalise.channels, width, norm, stride=2),
            conv(width, 2 * width, norm, stride=2),
            conv(2 * width, 3 * width, norm),
            conv(3 * width, 3 * width, norm, dilation=2),
            conv(3 * width, 3 * width, norm, dilation=2),
        )
        self.heads = Heads(3 * width, 2 * width, num_classes, config, norm)

    def encode(self, images: Tensor) -> Features:
        """Return one map of stride 4, and the one that the last convolution makes it of."""
        inner = last = images
        for layer in self.encoder:
            inner, last = last, layer(last)
        return Features([last], inner)

    def decode(self, maps: Sequence[Tensor], images: Tensor) -> Dense:
        """Apply the heads."""
        dense: Dense = self.heads(*maps)
        return dense

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the encoder."""
        return {"encoder": self.encoder}


def build_model(config: ModelConfig, num_classes: int, seed: int, device: torch.device) -> nn.Module:
    """Return the network on the device, in channels_last, initialised from `seed` and the encoder's weights alone.

    Initialisation draws from the global generator; its state is put back, so building a model changes nothing else.
    What was found in the encoder's weights is logged as one line, and a warning where tensors are missing.

    Raises:
        ConfigError: the normalisation needs another device, or timm has no such encoder.
        DataError: the encoder's weights cannot be read, or less than half of the encoder is in them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_network(config, num_classes, device)
    if config.arch != "tiny" and config.backbone_weights != "none":
        from trainers.models.weights import load_encoder

        for member in members(model):
            load_encoder(member, config)
    model.to(device)
    return model.to(memory_format=torch.channels_last)


def make_network(config: ModelConfig, num_classes: int, device: torch.device) -> Network:
    """Return the network, or pair, with random parameters from the global generator, not yet moved to the device.

    Raises:
        ConfigError: as `build_model`.
    """
    made = []
    for _ in range(config.students):
        norm = norm_layer(config.norm, device)
        network = _network_class(config)(config, num_classes, norm)
        network.add_auxiliary(config, num_classes, norm)
        network.freeze_encoder(config)
        made.append(network)
    return made[0] if len(made) == 1 else Pair(*made)


def _network_class(config: ModelConfig) -> Callable[[ModelConfig, int, Norm], Network]:
    # Imported here: torchvision and timm take seconds to import, and the tiny network needs none of them.
    if config.arch == "tiny":
        return TinySegmenter
    if config.encoder is None:
        from trainers.models.deeplab import ResNetDeepLab

        return ResNetDeepLab
    if config.arch == "dpt":
        from trainers.models.dpt import DptSegmenter

        return DptSegmenter
    from trainers.models.on_timm import LightSegmenter, TimmDeepLab

    return LightSegmenter if config.arch == "light" else TimmDeepLab
